-- Gives a drained GPU runs again. Its event wakes the claim of its worker.
-- ARGV: nonce, ttl, gpu_id, operator action (JSON).
-- Replies: OK, UNCHANGED, UNKNOWN_GPU.
local gpu_id, action, key = ARGV[3], cjson.decode(ARGV[4]), G.gpu .. ARGV[3]
if redis.call('HDEL', G.drained, gpu_id) == 0 then
  if redis.call('EXISTS', key) == 1 then return reply('UNCHANGED') end
  return reply('UNKNOWN_GPU', { gpu_id = gpu_id })
end
redis.call('HDEL', key, 'drained')
refresh_gpu(gpu_id)
record('', action, '', us(now_us()), 'takes runs again')
return reply('OK')
