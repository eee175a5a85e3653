-- Gives a GPU no new run; the one that it has ends by itself. The drain stays when its worker
-- registers again, and when the GPU leaves the pool and comes back.
-- ARGV: nonce, ttl, gpu_id, operator action (JSON).
-- Replies: OK {drained}, UNCHANGED {drained}, UNKNOWN_GPU.
local gpu_id, action, key = ARGV[3], cjson.decode(ARGV[4]), G.gpu .. ARGV[3]
local before = redis.call('HGET', G.drained, gpu_id)
if before then return reply('UNCHANGED', { drained = before }) end
if redis.call('EXISTS', key) == 0 then return reply('UNKNOWN_GPU', { gpu_id = gpu_id }) end
local now = us(now_us())
local drained = cjson.encode({ by = action.by, reason = action.reason, at = now })
redis.call('HSET', G.drained, gpu_id, drained)
redis.call('HSET', key, 'drained', drained)
refresh_gpu(gpu_id)
record('', action, '', now, 'takes no new run')
return reply('OK', { drained = drained })
