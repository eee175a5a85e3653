-- A sign of life, with health and flags; harmless twice, so it carries no nonce.
-- ARGV: '', '', gpu_id, health (JSON, '' for none), problem ('' for none), '1' if quarantined,
--       '1' if draining.
-- Outcomes: OK, UNKNOWN_GPU.
local gpu_id, key = ARGV[3], G.gpu .. ARGV[3]
if redis.call('EXISTS', key) == 0 then return reply('UNKNOWN_GPU') end
local now = us(now_us())
redis.call('ZADD', G.seen, now, gpu_id)
redis.call('HSET', key, 'heartbeat', now)
if ARGV[4] ~= '' then redis.call('HSET', key, 'health', ARGV[4], 'health_at', now) end
local function flag(name, value)
  if value == '' then redis.call('HDEL', key, name) else redis.call('HSET', key, name, value) end
end
flag('problem', ARGV[5])
flag('quarantined', ARGV[6])
flag('draining', ARGV[7])
refresh_gpu(gpu_id)
return reply('OK')
