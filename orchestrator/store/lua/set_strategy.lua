-- Sets the strategy: a person's choice, or an adaptation.
-- ARGV: nonce, ttl, tag, journal entry (JSON), strategy (JSON object of strings), operator action
--       (JSON; '' for an adaptation).
-- Replies: OK {strategy}, STALE, UNKNOWN_TAG.
local tag, step, strategy = ARGV[3], cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local action = ARGV[6] ~= '' and cjson.decode(ARGV[6]) or nil
local t = T(tag)
if redis.call('EXISTS', t.tag) == 0 then return reply('UNKNOWN_TAG', { tag = tag }) end
if stale(t, step) then return reply('STALE') end
strategy.updated = us(now_us())
set_hash(t.strategy, strategy)
redis.call('HINCRBY', t.tag, 'revision', 1)
local now = hash_of(t.strategy)
journal(tag, 'strategy', '', strategy.updated, step)
if action then
  local pinned = now.pinned == '1' and ', pinned' or ', not pinned'
  record(tag, action, step.revision, strategy.updated, now.mode .. pinned)
end
event('strategy', tag, '', { mode = strategy.mode })
return reply('OK', { strategy = now })
