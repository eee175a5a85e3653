-- Gives a drained GPU runs again. Its event wakes the claim of its worker.
-- ARGV: nonce, ttl, gpu_id, operator action (JSON).
-- Outcomes: OK, UNCHANGED, UNKNOWN_GPU.
local gpu_id, key = ARGV[3], G.gpu .. ARGV[3]
if redis.call('HDEL', G.drained, gpu_id) == 0 then
  return reply(redis.call('EXISTS', key) == 1 and 'UNCHANGED' or 'UNKNOWN_GPU')
end
redis.call('HDEL', key, 'drained')
refresh_gpu(gpu_id)
record('', cjson.decode(ARGV[4]), '', us(now_us()), 'takes runs again')
return reply('OK')
