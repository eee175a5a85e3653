-- Reads the whole pool in one step.
-- ARGV: '', ''.
-- Replies: OK {now, gpus: [[id, hash], ..]}.
local gpus = {}
for i, gpu_id in ipairs(redis.call('ZRANGE', G.gpus, 0, -1)) do
  gpus[i] = { gpu_id, hash_of(G.gpu .. gpu_id) }
end
return reply('OK', { now = us(now_us()), gpus = gpus })
