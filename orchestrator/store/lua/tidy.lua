-- Ends holds that have lapsed, takes silent GPUs out of the idle set, and gives repeats that were to
-- check such a GPU to others; the reaper runs it.
-- A heartbeat in the future was stamped before the clock was set back. It counts from now, or a GPU
-- that died then would seem alive until that moment.
-- ARGV: '', '', µs after which a silent GPU is offline.
-- Replies: OK {lapsed: [gpu ids], alive: how many GPUs are not silent}.
local offline_us, now = tonumber(ARGV[3]), now_us()
-- No effect, but an error while Redis takes no writes: no worker can renew then, and the reaper must
-- know.
redis.call('ZREM', G.idle, '')
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
-- A repeat that is to check a GPU does not wait for one that takes no runs now.
-- One call for each set and not for each GPU: a pass over 8 000 GPUs held up Redis for 22 ms.
local takes_runs = {}
for _, gpus in ipairs({ G.idle, G.busy }) do
  for _, gpu_id in ipairs(redis.call('ZRANGE', gpus, 0, -1)) do takes_runs[gpu_id] = true end
end
for _, gpu_id in ipairs(redis.call('ZRANGE', G.gpus, 0, -1)) do
  if not takes_runs[gpu_id] then
    for _, id in ipairs(redis.call('ZRANGE', G.direct .. gpu_id, 0, -1)) do
      if redis.call('HEXISTS', T(tag_of(id)).follow, id) == 1 then undirect(id) end
    end
  end
end
local alive = redis.call('ZCOUNT', G.seen, us(now - offline_us), '+inf')
return reply('OK', { lapsed = lapsed, alive = alive })
