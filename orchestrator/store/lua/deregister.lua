-- Takes a GPU out of the pool, unless a lease or a hand-run has it. Jobs that were meant for it
-- join the queues of their tags.
-- ARGV: nonce, ttl, gpu_id, worker ('' for any).
-- Replies: OK, LEASED {by}, HELD {by}, UNKNOWN_GPU, FOREIGN_GPU.
local gpu_id, key = ARGV[3], G.gpu .. ARGV[3]
local gpu = redis.call('HMGET', key, 'order', 'lease', 'hold')
if not gpu[1] then return reply('UNKNOWN_GPU', { gpu_id = gpu_id }) end
if foreign(gpu_id, ARGV[4]) then return reply('FOREIGN_GPU', { gpu_id = gpu_id }) end
if gpu[2] then return reply('LEASED', { by = string.match(gpu[2], '^%S+') }) end
if gpu[3] then return reply('HELD', { by = gpu[3] }) end
for _, id in ipairs(redis.call('ZRANGE', G.direct .. gpu_id, 0, -1)) do undirect(id) end
redis.call('DEL', key)
for _, set in ipairs({ G.gpus, G.idle, G.busy, G.seen, G.holds }) do
  redis.call('ZREM', set, gpu_id)
end
event('gpu', '', gpu_id, { state = 'deregistered' })
return reply('OK')
