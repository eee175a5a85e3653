-- Queues a run that a keep rule asks for: a repeat of a source with the next seed, or the first run
-- of a merge. It takes the place in the queue of the run that it follows.
-- ARGV: nonce, ttl, tag, revision and last_created of the tag on which the rule rests, experiment
--       (JSON object of strings; '' for a repeat of the one that it follows), seed, id of the run
--       that it follows, what (`SOURCE SEED`, or `merge SEED`).
-- Replies: OK {id, due: see the prelude}, STALE: a run was decided, submitted or queued since;
--          UNKNOWN_ID {experiment_id}.
local tag, seed, after, what = ARGV[3], ARGV[7], ARGV[8], ARGV[9]
local t = T(tag)
local fields = redis.call('HMGET', t.tag, 'revision', 'last_created', 'budget', 'prepare')
if fields[1] ~= ARGV[4] or fields[2] ~= ARGV[5] then return reply('STALE') end
local experiment
if ARGV[6] ~= '' then
  experiment = cjson.decode(ARGV[6])
else
  experiment = hash_of(t.exp .. after)
  if not experiment.source then return reply('UNKNOWN_ID', { experiment_id = after }) end
  experiment.repeat_of, experiment.merged_from = after, nil
end
local followed = redis.call('HMGET', t.run .. after, 'score', 'priority')
local run = {
  state = 'queued', status = 'queued', budget = fields[3], prepare = fields[4] or nil, seed = seed,
  score = followed[1], priority = followed[2],
}
local id = create(tag, experiment, run, fields[2])
local source = experiment.source .. ':' .. seed
local ran = redis.call('HGET', t.sources, source)
redis.call('HSET', t.sources, source, ran and ran .. ' ' .. id or id)
redis.call('HSET', t.follow, id, what)
enqueue(tag, id, run.score)
return reply('OK', { id = id, due = due(t) })
