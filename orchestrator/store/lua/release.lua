-- Gives a GPU that a hand-run holds back to the pool; a release sent again is OK.
-- ARGV: nonce, ttl, gpu_id, id ('' if the caller did not say).
-- Replies: OK, LEASED {by}, NOT_HELD {by}, UNKNOWN_GPU.
local gpu_id, id, key = ARGV[3], ARGV[4], G.gpu .. ARGV[3]
local gpu = redis.call('HMGET', key, 'order', 'lease', 'hold', 'last_hold')
if not gpu[1] then return reply('UNKNOWN_GPU', { gpu_id = gpu_id }) end
if gpu[2] then return reply('LEASED', { by = string.match(gpu[2], '^%S+') }) end
if not gpu[3] then
  if id == '' or id == gpu[4] then return reply('OK') end
  return reply('NOT_HELD', {})
end
if id ~= '' and id ~= gpu[3] then return reply('NOT_HELD', { by = gpu[3] }) end
redis.call('HDEL', key, 'hold')
redis.call('HSET', key, 'last_hold', gpu[3])
redis.call('ZREM', G.holds, gpu_id)
refresh_gpu(gpu_id)
event('gpu', '', gpu_id, { state = 'released' })
return reply('OK')
