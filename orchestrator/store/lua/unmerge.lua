-- Wins over an old parent that could not be merged wait no longer.
-- ARGV: nonce, ttl, tag, journal entry (JSON: entry, revision, seal), the race after it (JSON),
--       verdicts (JSON object: id -> verdict).
-- Replies: OK, STALE.
local tag, step, t = ARGV[3], cjson.decode(ARGV[4]), T(ARGV[3])
if stale(t, step) then return reply('STALE') end
redis.call('HINCRBY', t.tag, 'revision', 1)
redis.call('SET', t.race, ARGV[5])
for id, verdict in pairs(cjson.decode(ARGV[6])) do
  redis.call('HSET', t.run .. id, 'verdict', verdict)
  event('decided', tag, id, { status = redis.call('HGET', t.run .. id, 'status') })
end
journal(tag, 'unmerged', '', us(now_us()), step)
return reply('OK')
