-- Takes for a hand-run the idle GPU that registered first, of the model that its tag is pinned to.
-- The same experiment gets the same GPU again; a GPU found silent leaves the idle set until its next
-- heartbeat.
-- ARGV: nonce, ttl, tag, id, µs after which a silent GPU is offline, grace in µs.
-- Replies: OK {gpu_id, gpu_index}, NONE {gpu_model}, PAUSED, CONFLICT {state}, UNKNOWN_ID.
local tag, id, offline_us, grace_us, t = ARGV[3], ARGV[4], ARGV[5], ARGV[6], T(ARGV[3])
local run = redis.call('HMGET', t.run .. id, 'state', 'budget', 'gpu_id')
if not run[1] then return reply('UNKNOWN_ID', { experiment_id = id }) end
if run[1] ~= 'hand' then return reply('CONFLICT', { state = run[1] }) end
local function took(gpu_id)
  local index = redis.call('HGET', G.gpu .. gpu_id, 'gpu_index')
  return reply('OK', { gpu_id = gpu_id, gpu_index = index })
end
if run[3] and redis.call('HGET', G.gpu .. run[3], 'hold') == id then return took(run[3]) end
local tag_fields = redis.call('HMGET', t.tag, 'paused', 'gpu_model')
if tag_fields[1] then return reply('PAUSED') end

local now, at = now_us(), 0
repeat
  local some = redis.call('ZRANGE', G.idle, at, at + 15)  -- mostly the first one serves
  for _, gpu_id in ipairs(some) do
    if now - tonumber(redis.call('ZSCORE', G.seen, gpu_id)) > tonumber(offline_us) then
      redis.call('ZREM', G.idle, gpu_id)
    elseif is_of(redis.call('HGET', G.gpu .. gpu_id, 'gpu_name'), tag_fields[2]) then
      redis.call('HSET', G.gpu .. gpu_id, 'hold', id)
      redis.call('ZADD', G.holds, us(now + tonumber(run[2]) * 1e6 + tonumber(grace_us)), gpu_id)
      redis.call('HSET', t.run .. id, 'gpu_id', gpu_id)
      refresh_gpu(gpu_id)
      event('gpu', tag, gpu_id, { state = 'held', experiment_id = id })
      return took(gpu_id)
    else
      at = at + 1
    end
  end
until #some == 0
return reply('NONE', { gpu_model = tag_fields[2] or nil })
