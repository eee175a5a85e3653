-- Sets the strategy: a person's choice, or an adaptation that rests on a snapshot. A field that is
-- left out stays as it is.
-- ARGV: nonce, ttl, tag, expected tag revision ('' for any), strategy (JSON object of strings),
--       operator action (JSON; '' for an adaptation).
-- Outcomes: OK {strategy}, STALE, UNKNOWN_TAG.
local tag, t = ARGV[3], T(ARGV[3])
local revision = redis.call('HGET', t.tag, 'revision')
if not revision then return reply('UNKNOWN_TAG') end
if ARGV[4] ~= '' and ARGV[4] ~= revision then return reply('STALE') end
local strategy = cjson.decode(ARGV[5])
strategy.updated = us(now_us())
set_hash(t.strategy, strategy)
redis.call('HINCRBY', t.tag, 'revision', 1)
local now = hash_of(t.strategy)
local act = ARGV[6] ~= '' and cjson.decode(ARGV[6]) or nil
journal(t, 'strategy', '', strategy.updated,
  cjson.encode({ on = { revision = tonumber(revision) }, strategy = now, steered = act }))
if act then
  local pinned = now.pinned == '1' and ', pinned' or ', not pinned'
  record(tag, act, revision, strategy.updated, now.mode .. pinned)
end
event('strategy', tag, '', { mode = strategy.mode })
return reply('OK', { strategy = now })
