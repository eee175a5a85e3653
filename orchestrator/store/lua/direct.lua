-- Sends a registered or queued run to one GPU through the queue.
-- ARGV: nonce, ttl, tag, id, gpu_id, source ('' if the experiment has one), seed.
-- Replies: OK, CONFLICT {state}, DONE, PROFILE {tag, gpu}, MODEL {tag, gpu}, UNKNOWN_ID, UNKNOWN_GPU.
local tag, id, gpu_id, source, seed, t = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], T(ARGV[3])
local gpu = redis.call('HMGET', G.gpu .. gpu_id, 'order', 'profile', 'gpu_name')
if not gpu[1] then return reply('UNKNOWN_GPU', { gpu_id = gpu_id }) end
local bound = redis.call('HMGET', t.tag, 'profile', 'gpu_model')
if not serves(gpu[2], bound[1]) then
  return reply('PROFILE', { tag = bound[1], gpu = gpu[2] or 'none' })
end
if not is_of(gpu[3], bound[2]) then return reply('MODEL', { tag = bound[2], gpu = gpu[3] }) end
local run = hash_of(t.run .. id)
if not run.state then return reply('UNKNOWN_ID', { experiment_id = id }) end
if is_over(run.state) then return reply('DONE') end
if run.state ~= 'hand' and run.state ~= 'queued' then
  return reply('CONFLICT', { state = run.state })
end
if run.state == 'queued' then dequeue(tag, id) end
redis.call('ZREM', t.hand, id)
if source ~= '' then redis.call('HSET', t.exp .. id, 'source', source) end
if redis.call('HGET', G.gpu .. gpu_id, 'hold') == id then  -- acquired for it
  redis.call('HDEL', G.gpu .. gpu_id, 'hold')
  redis.call('HSET', G.gpu .. gpu_id, 'last_hold', id)
  redis.call('ZREM', G.holds, gpu_id)
  refresh_gpu(gpu_id)
end
local score = run.score or queue_score('0')
redis.call('HSET', t.run .. id, 'state', 'queued', 'status', 'queued', 'target_gpu', gpu_id,
  'score', score, 'seed', run.seed or seed)
redis.call('HDEL', t.run .. id, 'started', 'gpu_id')
move_status(t, id, run.status, 'queued')
enqueue(tag, id, score, gpu_id)
return reply('OK')
