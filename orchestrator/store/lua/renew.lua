-- Renews a lease; harmless twice, so it carries no nonce.
-- ARGV: '', '', tag, id, epoch, '1' once the launcher has been executed, the GPU's health (JSON) if
--       this is its heartbeat too ('' if not).
-- Outcomes: OK {cancel, known: whether the pool has the GPU}, LOST, UNKNOWN_ID.
local tag, t, id = ARGV[3], T(ARGV[3]), ARGV[4]
local run = redis.call('HMGET', t.run .. id, 'state', 'epoch', 'stop', 'gpu_id')
if not run[1] then return reply('UNKNOWN_ID') end
if run[2] ~= ARGV[5] or not (run[1] == 'leased' or run[1] == 'running') then return reply('LOST') end
-- A full Redis refuses a script whose first write needs memory, and this one must not be refused: a
-- lease that nobody can renew would be taken for dead. A ZREM needs none, and opens the door.
redis.call('ZREM', G.leases, id)
redis.call('ZADD', G.leases, us(now_us()), id)
if run[1] == 'leased' and ARGV[6] == '1' then
  redis.call('HSET', t.run .. id, 'state', 'running')
  event('started', tag, id, { gpu_id = run[4] })
end
local known = true
if ARGV[7] ~= '' then
  known = redis.call('HEXISTS', G.gpu .. run[4], 'order') == 1
  if known then sign_of_life(run[4], ARGV[7]) end
end
return reply('OK', { cancel = run[3] ~= false, known = known })
