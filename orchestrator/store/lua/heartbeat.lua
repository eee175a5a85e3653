-- A sign of life, with health and flags; harmless twice, so it carries no nonce.
-- ARGV: '', '', gpu_id, health (JSON, '' for none), problem ('' for none), '1' if quarantined,
--       '1' if draining.
-- Outcomes: OK, UNKNOWN_GPU.
local gpu_id, key = ARGV[3], G.gpu .. ARGV[3]
local names = { 'problem', 'quarantined', 'draining' }
local known = redis.call('HMGET', key, 'order', unpack(names))
if not known[1] then return reply('UNKNOWN_GPU') end
sign_of_life(gpu_id, ARGV[4])
for i, name in ipairs(names) do
  local value = ARGV[4 + i]
  if value ~= (known[1 + i] or '') then
    if value == '' then redis.call('HDEL', key, name) else redis.call('HSET', key, name, value) end
  end
end
refresh_gpu(gpu_id)  -- one that was silent may be idle again
return reply('OK')
