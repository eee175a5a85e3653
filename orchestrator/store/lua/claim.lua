-- Leases the first queued run that this GPU may have: of those directed to it, those of tags bound
-- to its platform and GPU model and those of tags not bound yet (which the claim binds). A paused
-- tag's jobs are not claimed: it is in no `ready` set, and its directed jobs are passed over.
-- ARGV: nonce (the worker's claim id), ttl, gpu_id, secret of the lease,
--       worker ('' for any), seconds of the lease and between its renewals.
-- Replies: OK {id, tag, epoch, secret, seed, budget, prepare, source, best, lease, heartbeat},
--          NONE {profile, gpu_model}, BUSY (the GPU may have no job now), UNKNOWN_GPU, FOREIGN_GPU.
local gpu_id, secret, lease, heartbeat = ARGV[3], ARGV[4], ARGV[6], ARGV[7]
-- True if one of the tag's newest runs had a GPU of another model.
local function ran_elsewhere(t, model)
  for _, id in ipairs(redis.call('ZRANGE', t.all, -200, -1)) do
    local name = redis.call('HGET', t.run .. id, 'env_gpu_name')
    if name and name ~= model then return true end
  end
  return false
end
local gpu = hash_of(G.gpu .. gpu_id)
local model = gpu.gpu_name ~= '' and gpu.gpu_name
if not gpu.order then return reply('UNKNOWN_GPU', { gpu_id = gpu_id }) end
if foreign(gpu_id, ARGV[5]) then return reply('FOREIGN_GPU', { gpu_id = gpu_id }) end
local now = us(now_us())
redis.call('HSET', G.gpu .. gpu_id, 'heartbeat', now)
redis.call('ZADD', G.seen, now, gpu_id)
if gpu.lease or gpu.hold then return reply('BUSY') end
if gpu.draining or gpu.drained or gpu.quarantined or gpu.problem then return reply('BUSY') end

local best, tag, id
local function consider(platform)
  for _, key in ipairs({ ready_key(platform), ready_key(platform, model) }) do
    local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    local score = tonumber(head[2])
    if score and (not best or score < best) then best, tag = score, head[1] end
  end
end
consider(nil)
if gpu.profile then consider(gpu.profile) end
local without_data = profile_of(gpu.profile)  -- of tags that an older version bound
if without_data ~= gpu.profile then consider(without_data) end
local directed = redis.call('ZRANGE', G.direct .. gpu_id, 0, -1, 'WITHSCORES')
for i = 1, #directed, 2 do
  local of = redis.call('HMGET', T(tag_of(directed[i])).tag, 'profile', 'paused', 'gpu_model')
  if not (serves(gpu.profile, of[1]) and is_of(model, of[3])) then
    undirect(directed[i])  -- its tag was bound to other GPUs after the job was directed here
  elseif not of[2] then
    if not best or tonumber(directed[i + 1]) < best then
      id, tag = directed[i], tag_of(directed[i])
    end
    break
  end
end
if not tag then
  refresh_gpu(gpu_id)
  return reply('NONE', { profile = gpu.profile, gpu_model = model or nil })
end

if id then
  redis.call('ZREM', G.direct .. gpu_id, id)
else
  id = redis.call('ZRANGE', T(tag).queue, 0, 0)[1]
  redis.call('ZREM', T(tag).queue, id)
end
local t = T(tag)
local bound = redis.call('HMGET', t.tag, 'profile', 'gpu_model', 'mix_models')
redis.call('ZREM', ready_key(bound[1], bound[2]), tag)
if gpu.profile then redis.call('HSETNX', t.tag, 'profile', gpu.profile) end
if model and not (bound[2] or bound[3]) then
  -- A tag of an older version that has had runs on another model goes on with both.
  local mixed = ran_elsewhere(t, model)
  redis.call('HSET', t.tag, mixed and 'mix_models' or 'gpu_model', mixed and '1' or model)
end
refresh_ready(tag)

local run = hash_of(t.run .. id)
local epoch = (tonumber(run.epoch) or 0) + 1
redis.call('HSET', t.run .. id, 'state', 'leased', 'status', 'running', 'epoch', epoch,
  'gpu_id', gpu_id, 'started', now, 'lease_seconds', lease)
if gpu.boot_id and not gpu.lease_secrets then
  secret = nil  -- a daemon that cannot send it
else
  redis.call('HSET', t.run .. id, 'lease_secret', epoch .. ' ' .. secret)
end
move_status(t, id, run.status, 'running')
redis.call('RPUSH', t.attempts .. id,
  cjson.encode({ epoch = epoch, gpu_id = gpu_id, claimed = now }))
redis.call('ZADD', G.leases, now, id)
redis.call('HSET', G.gpu .. gpu_id, 'lease', id .. ' ' .. epoch)
refresh_gpu(gpu_id)
event('claimed', tag, id, { gpu_id = gpu_id, epoch = epoch })
return reply('OK', {
  id = id, tag = tag, epoch = epoch, secret = secret,
  seed = run.seed, budget = run.budget, prepare = run.prepare,
  source = redis.call('HGET', t.exp .. id, 'source'),
  best = redis.call('HGET', t.tag, 'best_val_bpb') or nil,
  lease = lease, heartbeat = heartbeat,
})
