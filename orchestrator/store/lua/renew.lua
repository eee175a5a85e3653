-- Renews a lease; harmless twice, so it carries no nonce.
-- ARGV: '', '', tag, id, epoch, '1' once the launcher has been executed, the GPU's health (JSON) if
--       this is its heartbeat too ('' if not), the lease's secret ('' for none).
-- Replies: OK {cancel, early: true if that is the early stop's doing, open: true if the early stop may
--          look at the run, known: true if the pool has the GPU}, LOST, NO_SECRET, UNKNOWN_ID.
local tag, id, epoch, started, health = ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[7]
local secret = ARGV[8]
local t = T(tag)
local run = redis.call('HMGET', t.run .. id, 'state', 'epoch', 'stop', 'gpu_id',
  'lease_secret', 'forecast')
if not run[1] then return reply('UNKNOWN_ID', { experiment_id = id }) end
if run[2] ~= epoch or not is_leased({ state = run[1] }) then
  return reply('LOST', { experiment_id = id, epoch = epoch })
end
-- Of another epoch where an orchestrator of an older version has granted this lease.
local has_secret = run[5] and string.find(run[5], epoch .. ' ', 1, true) == 1
if has_secret and run[5] ~= epoch .. ' ' .. secret then
  return reply('NO_SECRET', { experiment_id = id, epoch = epoch })
end
-- A full Redis refuses a script whose first write needs memory, and then a lease that nobody can
-- renew would seem dead. So the first write is a ZREM, which needs none.
redis.call('ZREM', G.leases, id)
redis.call('ZADD', G.leases, us(now_us()), id)
if run[1] == 'leased' and started then
  redis.call('HSET', t.run .. id, 'state', 'running')
  event('started', tag, id, { gpu_id = run[4] })
end
local known = true
if health ~= '' then
  known = redis.call('HEXISTS', G.gpu .. run[4], 'order') == 1
  if known then sign_of_life(run[4], health) end
end
local open = not run[3] and not run[6] and redis.call('HEXISTS', t.tag, 'early_stop') == 1
return reply('OK', {
  cancel = run[3] ~= false, early = run[3] == 'early', open = open, known = known,
})
