-- A sign of life, with health and flags; harmless twice, so it carries no nonce.
-- ARGV: '', '', gpu_id, health (JSON, '' for none), problem ('' for none), '1' if quarantined,
--       '1' if draining, worker ('' for any).
-- Replies: OK, UNKNOWN_GPU, FOREIGN_GPU.
local gpu_id, health = ARGV[3], ARGV[4]
local flags = { problem = ARGV[5], quarantined = ARGV[6], draining = ARGV[7] }
local key = G.gpu .. gpu_id
if redis.call('HEXISTS', key, 'order') == 0 then
  return reply('UNKNOWN_GPU', { gpu_id = gpu_id })
end
if foreign(gpu_id, ARGV[8]) then return reply('FOREIGN_GPU', { gpu_id = gpu_id }) end
sign_of_life(gpu_id, health)
for name, value in pairs(flags) do
  if value == '' then redis.call('HDEL', key, name) else redis.call('HSET', key, name, value) end
end
refresh_gpu(gpu_id)  -- one that was silent may be idle again
return reply('OK')
