-- Applies a decision, made by Python on a snapshot, in one step: run, best, keeps, near misses,
-- counters, streak, strategy, the end of the lease, the event.
-- ARGV: nonce, ttl, tag, id, states the run may be in (' hand ' or ' leased running '), epoch ('0'
--       for a run without lease), expected tag revision, expected last renewal ('' for any),
--       decision (JSON: status, judged, streak, ending, verdict, run {..}, others, and where they
--       apply best {..}, keep, near, strategy {..}, seconds, forget, steered {..}, race and stops
--       (JSON), drift (what a champion's run says of its GPU, '' for nothing bad), follow
--       {created: last_created of the tag, repeats: [{after, seed, what, gpu}, ..]}),
--       journal entry (JSON).
-- A candidate's verdict waits for repeats: its run is measured, not decided. `others` are verdicts
-- that this decision brings on other experiments: [{id, status, verdict, category, keep, near}].
-- One on a candidate settles it; one on a decided run changes the words of its verdict alone.
-- Replies: OK {verdict, followed: true if `follow` was done}, DONE {verdict}, LOST,
--          CONFLICT {state}, STALE, RENEWED, UNKNOWN_ID, EARLIER {experiment_id} (a tag's first
--          result waits for this run: see below).
local tag, id, states, epoch = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local revision, renewal, decision, entry = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local t = T(tag)
local run = hash_of(t.run .. id)
if not run.state then return reply('UNKNOWN_ID', { experiment_id = id }) end
local fenced = epoch ~= '0'
local function lost() return reply('LOST', { experiment_id = id, epoch = epoch }) end
if fenced and run.epoch ~= epoch then return lost() end
if is_over(run.state) then return reply('DONE', { verdict = run.verdict }) end
if fenced and not is_leased(run) then return lost() end
if not string.find(states, ' ' .. run.state .. ' ', 1, true) then
  return reply('CONFLICT', { state = run.state })
end
if renewal ~= '' and redis.call('ZSCORE', G.leases, id) ~= renewal then return reply('RENEWED') end
local tag_fields = redis.call('HMGET', t.tag, 'revision', 'last_decided', 'best_id',
  'last_created')
if tag_fields[1] ~= revision then return reply('STALE') end

local d = cjson.decode(decision)
-- The baseline is the first submission, even if a later one, or its own repeat, ends first.
if fenced and (d.best or d.status == 'repeat') and not tag_fields[3] then
  local earlier = first_leased(t, '(' .. us(created_of(id)))
  if earlier then return reply('EARLIER', { experiment_id = earlier }) end
end
local category = redis.call('HGET', t.exp .. id, 'category')
local finished = us(math.max(now_us(), (tonumber(tag_fields[2]) or 0) + 1))

-- The lease, the queue or the list of hand-runs that the run leaves.
if is_leased(run) then end_lease(t, id, run, d.ending) end
if run.state == 'queued' then dequeue(tag, id) end
redis.call('ZREM', t.hand, id)

-- The run.
local candidate = d.status == 'candidate'
d.run.state, d.run.measured = candidate and 'measured' or 'decided', candidate and finished or nil
d.run.status, d.run.finished, d.run.verdict = d.status, finished, d.verdict
set_hash(t.run .. id, d.run)
move_status(t, id, run.status, d.status)
if d.forget then  -- the source counts as not run, unless a repeat of this run exists
  local source = (redis.call('HGET', t.exp .. id, 'source') or '') .. ':' .. (run.seed or '')
  local others = {}
  for other in string.gmatch(redis.call('HGET', t.sources, source) or '', '%S+') do
    if other ~= id then others[#others + 1] = other end
  end
  if #others == 0 then
    redis.call('HDEL', t.sources, source)
  else
    redis.call('HSET', t.sources, source, table.concat(others, ' '))
  end
end

-- The tag.
local function judged(at, one_id, status, of_category, keep, near)
  redis.call('LPUSH', t.recent, status)
  redis.call('LTRIM', t.recent, 0, RECENT_RUNS - 1)
  if keep then
    redis.call('ZADD', t.keeps, at, keep)
    redis.call('HINCRBY', t.cats, 'kept:' .. of_category, 1)
  end
  if near then
    redis.call('ZADD', t.near, near, one_id)
    redis.call('HINCRBY', t.cats, 'near:' .. of_category, 1)
  end
end
redis.call('HINCRBY', t.tag, 'revision', 1)
if d.race then
  redis.call('SET', t.race, d.race)
  redis.call('HDEL', t.follow, id)
end
if d.drift and redis.call('EXISTS', G.gpu .. run.gpu_id) == 1 then
  if d.drift == '' then
    redis.call('HDEL', G.gpu .. run.gpu_id, 'drift')
  else
    redis.call('HSET', G.gpu .. run.gpu_id, 'drift', d.drift)
    event('gpu', tag, run.gpu_id, { state = 'drifted' })
  end
end
if d.stops then redis.call('SET', t.stops, d.stops) end
if d.seconds then redis.call('HINCRBYFLOAT', t.tag, 'training_seconds', d.seconds) end
if d.judged then
  judged(finished, id, d.status, category, d.keep, d.near)
elseif d.status == 'cancelled' or d.status == 'repeat' then  -- no experiment of its category
  redis.call('HINCRBY', t.cats, 'n:' .. category, -1)
elseif d.ending == 'lost' then
  redis.call('HINCRBY', t.tag, 'infra_lost', 1)
end
if d.best then
  d.best.best_at = finished
  d.best.best_commit = redis.call('HGET', t.exp .. d.best.best_id, 'commit_sha')
  set_hash(t.tag, d.best)
end
if d.strategy then
  d.strategy.updated = finished
  set_hash(t.strategy, d.strategy)
end
journal(tag, 'decided', id, finished, cjson.decode(entry))
if d.steered then record(tag, d.steered, revision, finished, d.status) end
event('decided', tag, id, { status = d.status, val_bpb = d.run.val_bpb, gpu_id = run.gpu_id })

-- The others, each a microsecond after the one before: no two verdicts of a tag have one moment.
local last = tonumber(finished)
for _, other in ipairs(d.others) do
  local key = t.run .. other.id
  redis.call('HSET', key, 'verdict', other.verdict)
  if other.status ~= 'candidate' and redis.call('HGET', key, 'state') == 'measured' then
    last = last + 1
    redis.call('HSET', key, 'state', 'decided', 'status', other.status, 'finished', us(last))
    move_status(t, other.id, 'candidate', other.status)
    judged(us(last), other.id, other.status, other.category, other.keep, other.near)
    event('decided', tag, other.id, { status = other.status })
  end
end
redis.call('HSET', t.tag, 'streak', d.streak, 'last_decided', us(last))

-- The repeats that the keep rule asks for then, unless a run was submitted or queued since the
-- snapshot.
local followed = d.follow and d.follow.created == tag_fields[4]
if followed then
  for _, one in ipairs(d.follow.repeats) do
    follow_up(tag, one.after, one.seed, one.what, nil, one.gpu)
  end
end
return reply('OK', { verdict = d.verdict, followed = followed })
