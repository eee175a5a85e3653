-- Ends holds that have lapsed, and takes silent GPUs out of the idle set; the reaper runs it.
-- A heartbeat in the future was stamped before the clock was set back. It counts from now, or a GPU
-- that died then would seem alive until that moment.
-- ARGV: '', '', µs after which a silent GPU is offline.
-- Replies: OK {lapsed: [gpu ids]}.
local offline_us, now = tonumber(ARGV[3]), now_us()
local lapsed = redis.call('ZRANGEBYSCORE', G.holds, '-inf', us(now))
for _, gpu_id in ipairs(lapsed) do
  local key = G.gpu .. gpu_id
  redis.call('HSET', key, 'last_hold', redis.call('HGET', key, 'hold') or '')
  redis.call('HDEL', key, 'hold')
  redis.call('ZREM', G.holds, gpu_id)
  refresh_gpu(gpu_id)
  event('gpu', '', gpu_id, { state = 'released' })
end
for _, gpu_id in ipairs(redis.call('ZRANGEBYSCORE', G.seen, '(' .. us(now), '+inf')) do
  redis.call('ZADD', G.seen, us(now), gpu_id)
  redis.call('HSET', G.gpu .. gpu_id, 'heartbeat', us(now))
end
for _, gpu_id in ipairs(redis.call('ZRANGEBYSCORE', G.seen, '-inf', us(now - offline_us))) do
  redis.call('ZREM', G.idle, gpu_id)
end
return reply('OK', { lapsed = lapsed })
