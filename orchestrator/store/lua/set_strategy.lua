-- Sets the strategy: a person's choice, or an adaptation that rests on a snapshot. A field that is
-- left out stays as it is.
-- ARGV: nonce, ttl, tag, expected tag revision ('' for any), strategy (JSON object of strings),
--       operator action (JSON; '' for an adaptation).
-- Replies: OK {strategy}, STALE, UNKNOWN_TAG.
local tag, expected, strategy = ARGV[3], ARGV[4], cjson.decode(ARGV[5])
local action = ARGV[6] ~= '' and cjson.decode(ARGV[6]) or nil
local t = T(tag)
local revision = redis.call('HGET', t.tag, 'revision')
if not revision then return reply('UNKNOWN_TAG', { tag = tag }) end
if expected ~= '' and expected ~= revision then return reply('STALE') end
strategy.updated = us(now_us())
set_hash(t.strategy, strategy)
redis.call('HINCRBY', t.tag, 'revision', 1)
local now = hash_of(t.strategy)
journal(t, 'strategy', '', strategy.updated,
  cjson.encode({ on = { revision = tonumber(revision) }, strategy = now, steered = action }))
if action then
  local pinned = now.pinned == '1' and ', pinned' or ', not pinned'
  record(tag, action, revision, strategy.updated, now.mode .. pinned)
end
event('strategy', tag, '', { mode = strategy.mode })
return reply('OK', { strategy = now })
