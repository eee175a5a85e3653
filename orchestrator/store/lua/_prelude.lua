-- What every verb shares. Loaded in front of each script, after the key tables G and T of keys.py.
-- ARGV[1] is the request's nonce ('' for reads and for verbs that are harmless twice), ARGV[2] how
-- many seconds its reply is kept. Replies that mean the same in every verb are UNKNOWN_TAG {tag},
-- UNKNOWN_PARENT {tag, parent_id}, UNKNOWN_ID {experiment_id}, UNKNOWN_GPU and FOREIGN_GPU {gpu_id}, LOST
-- and NO_SECRET {experiment_id, epoch}, and RENEWED. Times pass as decimal text: Lua's own formatting
-- would round them.

local function us(number) return string.format('%.0f', number) end

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The name is kept as `outcome`: replies outlive an upgrade, under their nonces.
-- `sealed` names the journal entry that was written, with its seal.
local sealed
local function reply(name, fields)
  local out = fields or {}
  out.outcome, out.sealed = name, sealed
  return cjson.encode(out)
end

local function hash_of(key)
  local flat, out = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end

local function set_hash(key, fields)
  local flat = {}
  for name, value in pairs(fields) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  if #flat > 0 then redis.call('HSET', key, unpack(flat)) end
end

local function event(kind, tag, id, fields)
  redis.call('XADD', G.events, 'MAXLEN', '~', 20000, '*',
    'type', kind, 'tag', tag, 'id', id, 'data', cjson.encode(fields or {}))
end

-- One entry for each step of a tag's `revision`, and one for its setup. `step` is {entry (JSON),
-- revision (the tag's before it), seal}: made outside Redis on a snapshot, because the seal's key
-- is there. A verb that writes an entry is refused where the tag is no longer as in that snapshot.
local function journal(tag, kind, id, at, step)
  local t = T(tag)
  local entry = { 'kind', kind, 'id', id, 'at', at, 'data', step.entry }
  if step.seal then
    entry[9], entry[10] = 'seal', step.seal
    redis.call('HSET', t.tag, 'sealed', step.seal .. ' ' .. at)
    sealed = { tag = tag, revision = step.revision, seal = step.seal }
  end
  redis.call('XADD', t.journal, '*', unpack(entry))
end

local function stale(t, step) return redis.call('HGET', t.tag, 'revision') ~= step.revision end

-- Puts an operator action that took effect, {action, by, reason, target, actor}, into the audit log.
-- `effect` is what it changed, `revision` the tag's before it, '' for the pool (whose tag is '').
local function record(tag, action, revision, at, effect)
  local entry = { 'at', at, 'tag', tag, 'action', action.action, 'by', action.by,
    'reason', action.reason, 'target', action.target, 'outcome', effect, 'revision', revision,
    'actor', action.actor or '' }
  local id = redis.call('XADD', G.ledger, '*', unpack(entry))
  if tag ~= '' then redis.call('XADD', T(tag).ledger, id, unpack(entry)) end
  event('steered', tag, action.target,
    { action = action.action, by = action.by, outcome = effect })
end

-- One step of a tag by an operator action alone (with `entry`, `revision`, `seal`, see `journal`):
-- its revision, its journal, the audit log. `id` is the experiment that it is about, or ''.
local function steer(tag, action, id, at, effect)
  redis.call('HINCRBY', T(tag).tag, 'revision', 1)
  journal(tag, 'steered', id, at, action)
  record(tag, action, action.revision, at, effect)
end

-- The format of an id, as in orchestrator/ids.py.
local function id_of(created, tag) return string.format('exp-%014x-%s', created, tag) end

local function created_of(id) return tonumber(string.sub(id, 5, 18), 16) end

local function tag_of(id) return string.sub(id, 20) end

local function move_status(t, id, from, to)
  if from == to then return end
  if from then redis.call('ZREM', t.status .. from, id) end
  redis.call('ZADD', t.status .. to, created_of(id), id)
end

-- A GPU is idle, busy or neither; both sets follow from its hash, here and nowhere else.
local function refresh_gpu(gpu_id)
  local key = G.gpu .. gpu_id
  local f = redis.call('HMGET', key, 'order', 'lease', 'hold', 'problem', 'quarantined', 'draining',
    'drained')
  if not f[1] then return end
  local taken = f[2] or f[3]
  if taken then redis.call('ZADD', G.busy, f[1], gpu_id) else redis.call('ZREM', G.busy, gpu_id) end
  if taken or f[4] or f[5] or f[6] or f[7] then
    redis.call('ZREM', G.idle, gpu_id)
  else
    redis.call('ZADD', G.idle, f[1], gpu_id)
  end
end

-- A platform is a profile and a hash of the data, `cpu/0a1b2c3d4e5f`, or a profile alone.
local function profile_of(platform) return platform and string.match(platform, '^[^/]*') end

-- True if a GPU of this platform may run a tag that is bound to `bound`, false for none.
local function serves(platform, bound)
  return not bound or bound == platform or bound == profile_of(platform)
end

-- True if a GPU of this model may run a tag that is pinned to `pinned`, false for none.
local function is_of(model, pinned) return not pinned or pinned == model end

-- The `ready` set of tags with this platform and GPU model, each nil or false for none.
local function ready_key(platform, model)
  return G.ready .. (platform or '-') .. (model and '#' .. model or '')
end

-- True if a worker's token, by its label, is not the one that registered the GPU. '' is a caller who
-- may use all GPUs.
local function foreign(gpu_id, worker)
  return worker ~= '' and redis.call('HGET', G.gpu .. gpu_id, 'worker') ~= worker
end

local function sign_of_life(gpu_id, health)
  local key, now = G.gpu .. gpu_id, us(now_us())
  redis.call('ZADD', G.seen, now, gpu_id)
  if health == '' then
    redis.call('HSET', key, 'heartbeat', now)
  else
    redis.call('HSET', key, 'heartbeat', now, 'health', health, 'health_at', now)
  end
end

-- `ready` holds each tag with queued jobs once, at the score of its first job, unless it is paused:
-- so a claim never sees a paused tag.
local function refresh_ready(tag)
  local t = T(tag)
  local fields = redis.call('HMGET', t.tag, 'profile', 'gpu_model', 'paused')
  local ready = ready_key(fields[1], fields[2])
  local head = redis.call('ZRANGE', t.queue, 0, 0, 'WITHSCORES')
  if #head == 0 or fields[3] then
    redis.call('ZREM', ready, tag)
  else
    redis.call('ZADD', ready, head[2], tag)
  end
end

local function enqueue(tag, id, score, gpu_id)
  if gpu_id and gpu_id ~= '' then
    redis.call('ZADD', G.direct .. gpu_id, score, id)
  else
    redis.call('ZADD', T(tag).queue, score, id)
    refresh_ready(tag)
  end
  local bound = redis.call('HMGET', T(tag).tag, 'profile', 'gpu_model')
  event('queued', tag, id,
    { gpu_id = gpu_id, profile = bound[1] or nil, gpu_model = bound[2] or nil })
end

-- Puts a job that was meant for one GPU into its tag's queue instead.
local function undirect(id)
  local tag = tag_of(id)
  local run = T(tag).run .. id
  redis.call('ZREM', G.direct .. redis.call('HGET', run, 'target_gpu'), id)
  redis.call('HDEL', run, 'target_gpu')
  enqueue(tag, id, redis.call('HGET', run, 'score'))
end

local function dequeue(tag, id)
  local gpu_id = redis.call('HGET', T(tag).run .. id, 'target_gpu')
  if gpu_id then redis.call('ZREM', G.direct .. gpu_id, id) end
  redis.call('ZREM', T(tag).queue, id)
  refresh_ready(tag)
end

-- Higher priority first, then arrival: exact in a double for |priority| <= 1000.
local function rank(arrival, priority) return us(arrival - tonumber(priority) * 2 ^ 40) end

local function queue_score(priority) return rank(redis.call('INCR', G.seq), priority) end

-- Writes a new experiment with its run and every index; returns its id. `last` is when the tag's
-- last one was created: the next is later, even if the clock was set back. A hand-run starts now.
local function create(tag, experiment, run, last)
  local t = T(tag)
  local created = math.max(now_us(), (tonumber(last) or 0) + 1)
  local id = id_of(created, tag)
  if run.state == 'hand' then run.started = us(created) end
  redis.call('HSET', t.tag, 'last_created', us(created))
  experiment.created = us(created)
  set_hash(t.exp .. id, experiment)
  set_hash(t.run .. id, run)
  redis.call('ZADD', t.all, us(created), id)
  move_status(t, id, nil, run.status)
  redis.call('HINCRBY', t.cats, 'n:' .. experiment.category, 1)
  return id
end

-- Creates an experiment that has a source, and puts its run into the queue, or into that of the GPU
-- `run.target_gpu`. `run` has the seed, score and priority. Returns its id.
local function create_queued(tag, experiment, run)
  local t = T(tag)
  local fields = redis.call('HMGET', t.tag, 'budget', 'prepare', 'last_created')
  run.state, run.status = 'queued', 'queued'
  run.budget, run.prepare = fields[1], fields[2] or nil
  local id = create(tag, experiment, run, fields[3])
  local source = experiment.source .. ':' .. run.seed
  local ran = redis.call('HGET', t.sources, source)
  redis.call('HSET', t.sources, source, ran and ran .. ' ' .. id or id)
  enqueue(tag, id, run.score, run.target_gpu)
  return id
end

-- Ends the lease of an attempt: the GPU is free again, and the attempt's record says how it ended.
local function end_lease(t, id, run, ending)
  local gpu_id = run.gpu_id
  redis.call('ZREM', G.leases, id)
  if redis.call('HGET', G.gpu .. gpu_id, 'lease') == id .. ' ' .. run.epoch then
    redis.call('HDEL', G.gpu .. gpu_id, 'lease')
    refresh_gpu(gpu_id)
  end
  local attempt = cjson.decode(redis.call('LINDEX', t.attempts .. id, -1))
  attempt.ended, attempt.outcome = us(now_us()), ending
  redis.call('LSET', t.attempts .. id, -1, cjson.encode(attempt))
end

-- The oldest leased run of a tag, of those created before `created`; a hand-run has no lease.
local function first_leased(t, created)
  for _, id in ipairs(redis.call('ZRANGE', t.status .. 'running', '-inf', created, 'BYSCORE')) do
    if redis.call('ZSCORE', G.leases, id) then return id end
  end
end

local function is_leased(run) return run.state == 'leased' or run.state == 'running' end

-- True for a run that has had its training, with or without a final verdict.
local function is_over(state) return state == 'decided' or state == 'measured' end

-- What of a tag, whose fields are `tag`, is queued and runs, for a keep rule that queues runs itself:
-- {running: [[id, seed], ..] in order of creation, follow {id: what}, ideas, idle, gpus, quiet}.
-- `ideas` are queued runs that no rule asked for, `idle` counts the free GPUs that may run the tag,
-- `gpus` those and the busy ones up to ENOUGH_GPUS, `quiet` are seconds without a submission or a
-- decision. All of it as if the run `over` were decided now, if that is given with its id.
-- The rule has three runs of a source under way at most, and one GPU may be about to leave.
local ENOUGH_GPUS = 4
local function workload(t, tag, id, over)
  local function serving(gpus, most)
    local n = 0
    for _, gpu_id in ipairs(redis.call('ZRANGE', gpus, 0, -1)) do
      if n >= most then break end  -- a call for each of thousands would hold up Redis
      local gpu = redis.call('HMGET', G.gpu .. gpu_id, 'profile', 'gpu_name')
      if serves(gpu[1], tag.profile) and is_of(gpu[2], tag.gpu_model) then n = n + 1 end
    end
    return n
  end
  local out = { running = {}, follow = hash_of(t.follow), idle = serving(G.idle, math.huge), quiet = 0 }
  out.gpus = out.idle + serving(G.busy, ENOUGH_GPUS - out.idle)
  for _, started in ipairs(redis.call('ZRANGE', t.status .. 'running', 0, -1)) do
    if started ~= id then
      out.running[#out.running + 1] = { started, redis.call('HGET', t.run .. started, 'seed') }
    end
  end
  out.ideas = redis.call('ZCARD', t.status .. 'queued')
  for followed in pairs(out.follow) do
    if redis.call('HGET', t.run .. followed, 'status') == 'queued' then out.ideas = out.ideas - 1 end
  end
  if not over then
    local last = math.max(tonumber(tag.last_created) or 0, tonumber(tag.last_decided) or 0)
    out.quiet = math.max(0, now_us() - math.max(last, tonumber(tag.created))) / 1000000
    return out
  end
  if over.status == 'queued' and not out.follow[id] then out.ideas = out.ideas - 1 end
  out.follow[id] = nil
  if is_leased(over) then
    local f = redis.call('HMGET', G.gpu .. over.gpu_id, 'lease', 'problem', 'quarantined',
      'draining', 'drained')
    if f[1] == id .. ' ' .. over.epoch then
      if f[2] or f[3] or f[4] or f[5] then
        out.gpus = out.gpus - 1
      else
        out.idle = out.idle + 1
      end
    end
  end
  return out
end

-- Queues a run that a keep rule asks for: `experiment`, or a repeat of `after`. It takes the place in
-- the queue of the run `after`. `what` is `SOURCE SEED`, or `merge SEED`. Returns its id, or nil if
-- there is no record of the source.
local function follow_up(tag, after, seed, what, experiment, gpu_id)
  local t = T(tag)
  if not experiment then
    experiment = hash_of(t.exp .. after)
    experiment.repeat_of, experiment.merged_from = after, nil
  end
  if not experiment.source then return nil end
  local followed = redis.call('HMGET', t.run .. after, 'score', 'priority')
  local id = create_queued(tag, experiment, {
    seed = seed, score = followed[1], priority = followed[2],
    target_gpu = gpu_id and redis.call('ZSCORE', G.idle, gpu_id) and gpu_id or nil,
  })
  redis.call('HSET', t.follow, id, what)
  return id
end
