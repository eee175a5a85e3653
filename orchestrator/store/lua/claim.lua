-- Leases the first queued run that this GPU may have: of those directed to it, those of tags bound
-- to its platform profile and those of tags not bound yet (which the claim binds).
-- ARGV: nonce (the worker's claim id), ttl, gpu_id.
-- Outcomes: OK {id, tag, epoch, ..}, NONE {profile}, BUSY, UNKNOWN_GPU.
local gpu_id = ARGV[3]
local gpu = hash_of(G.gpu .. gpu_id)
if not gpu.order then return reply('UNKNOWN_GPU') end
local now = us(now_us())
redis.call('HSET', G.gpu .. gpu_id, 'heartbeat', now)
redis.call('ZADD', G.seen, now, gpu_id)
if gpu.lease then return reply('BUSY') end
if gpu.hold then return reply('BUSY') end
if gpu.draining or gpu.quarantined or gpu.problem then return reply('BUSY') end

local best, lane
local function consider(key)
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #head > 0 and (not best or tonumber(head[2]) < best) then best, lane = tonumber(head[2]), key end
end
consider(G.ready .. '-')
if gpu.profile then consider(G.ready .. gpu.profile) end
for _, id in ipairs(redis.call('ZRANGE', G.direct .. gpu_id, 0, -1)) do
  local profile = redis.call('HGET', T(tag_of(id)).tag, 'profile')
  if not profile or profile == gpu.profile then break end
  undirect(id)  -- its tag was bound to another profile after the job was directed here
end
consider(G.direct .. gpu_id)
if not lane then
  refresh_gpu(gpu_id)
  return reply('NONE', { profile = gpu.profile })
end

local first, id, tag = redis.call('ZRANGE', lane, 0, 0)[1]
if lane == G.direct .. gpu_id then
  id, tag = first, tag_of(first)
  redis.call('ZREM', lane, id)
else
  tag, id = first, redis.call('ZRANGE', T(first).queue, 0, 0)[1]
  redis.call('ZREM', T(tag).queue, id)
end
local t = T(tag)
if gpu.profile and redis.call('HSETNX', t.tag, 'profile', gpu.profile) == 1 then
  redis.call('ZREM', G.ready .. '-', tag)
end
refresh_ready(tag)

local run = hash_of(t.run .. id)
local epoch = (tonumber(run.epoch) or 0) + 1
redis.call('HSET', t.run .. id, 'state', 'leased', 'status', 'running', 'epoch', epoch,
  'gpu_id', gpu_id, 'started', now)
move_status(t, id, run.status, 'running')
redis.call('RPUSH', t.attempts .. id,
  cjson.encode({ epoch = epoch, gpu_id = gpu_id, claimed = now }))
redis.call('ZADD', G.leases, now, id)
redis.call('HSET', G.gpu .. gpu_id, 'lease', id .. ' ' .. epoch)
refresh_gpu(gpu_id)
event('claimed', tag, id, { gpu_id = gpu_id, epoch = epoch })
return reply('OK', {
  id = id, tag = tag, epoch = epoch, seed = run.seed, budget = run.budget, prepare = run.prepare,
  source = redis.call('HGET', t.exp .. id, 'source'),
})
