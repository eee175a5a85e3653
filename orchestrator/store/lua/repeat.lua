-- Queues the source of a run that is over once more, as a new experiment with the same parent and seed.
-- ARGV: nonce, ttl, tag, id, operator action with its journal entry (JSON).
-- Replies: OK {id, position}, CONFLICT {state}, NO_SOURCE, STALE, UNKNOWN_ID.
local tag, id, action, t = ARGV[3], ARGV[4], cjson.decode(ARGV[5]), T(ARGV[3])
local before, experiment = hash_of(t.run .. id), hash_of(t.exp .. id)
if not before.state then return reply('UNKNOWN_ID', { experiment_id = id }) end
if not is_over(before.state) then return reply('CONFLICT', { state = before.state }) end
if not experiment.source then return reply('NO_SOURCE') end
if stale(t, action) then return reply('STALE') end

experiment.repeat_of = id
local priority = before.priority or '0'
local new = create_queued(tag, experiment,
  { seed = before.seed, priority = priority, score = queue_score(priority) })
steer(tag, action, id, us(now_us()), 'repeated as ' .. new)
return reply('OK', { id = new, position = redis.call('ZRANK', t.queue, new) + 1 })
