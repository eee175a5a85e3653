-- Gives a GPU no new run; the one that it has ends by itself. It stays so when its worker registers
-- anew, or leaves and comes back.
-- ARGV: nonce, ttl, gpu_id, operator action (JSON).
-- Outcomes: OK {drained}, UNCHANGED {drained}, UNKNOWN_GPU.
local gpu_id, key, act = ARGV[3], G.gpu .. ARGV[3], cjson.decode(ARGV[4])
local before = redis.call('HGET', G.drained, gpu_id)
if before then return reply('UNCHANGED', { drained = before }) end
if redis.call('EXISTS', key) == 0 then return reply('UNKNOWN_GPU') end
local now = us(now_us())
local drained = cjson.encode({ by = act.by, reason = act.reason, at = now })
redis.call('HSET', G.drained, gpu_id, drained)
redis.call('HSET', key, 'drained', drained)
refresh_gpu(gpu_id)
record('', act, '', now, 'takes no new run')
return reply('OK', { drained = drained })
