-- Adds a GPU or renews its facts. A live lease or hold, and the place in the order, stay.
-- ARGV: nonce, ttl, gpu_id, facts (JSON object of strings), worker ('' for any).
-- Replies: OK {gpu, now}, FOREIGN_GPU.
local gpu_id, facts, worker = ARGV[3], cjson.decode(ARGV[4]), ARGV[5]
local key, now = G.gpu .. gpu_id, us(now_us())
facts.heartbeat = now
if redis.call('EXISTS', key) == 1 then
  if foreign(gpu_id, worker) then return reply('FOREIGN_GPU', { gpu_id = gpu_id }) end
else
  if worker ~= '' then facts.worker = worker end
  facts.registered, facts.order = now, us(redis.call('INCR', G.seq))
  facts.drained = redis.call('HGET', G.drained, gpu_id) or nil  -- by a person, before it left
  redis.call('ZADD', G.gpus, facts.order, gpu_id)
end
-- A daemon that has just started checked its GPU; a bare call must not undo what the daemon said.
if facts.boot_id then
  local said = { 'problem', 'quarantined', 'draining', 'profile', 'sandbox', 'lease_secrets',
    'drift', 'data_folder', 'placement' }
  redis.call('HDEL', key, unpack(said))
end
set_hash(key, facts)
redis.call('ZADD', G.seen, now, gpu_id)
refresh_gpu(gpu_id)
event('gpu', '', gpu_id, { state = 'registered' })
return reply('OK', { gpu = hash_of(key), now = now })
