-- Queues a run that the keep rule `race` asks for: a repeat of a source with the next seed, or the
-- first run of a merge. It takes the place in the queue of the run that it follows.
-- ARGV: nonce, ttl, tag, revision and last_created of the tag on which the rule rests, experiment
--       (JSON object of strings), seed, id of the run that it follows, what (`SOURCE SEED`, or
--       `merge SEED`; then what a repeat of the champion checks), the GPU that is to have it, '' for any.
-- Replies: OK {id}, STALE: a run was decided, submitted or queued since, or the GPU is not idle.
local tag, experiment, seed, after, what = ARGV[3], cjson.decode(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
local gpu_id, t = ARGV[10], T(tag)
local fields = redis.call('HMGET', t.tag, 'revision', 'last_created', 'budget', 'prepare')
if fields[1] ~= ARGV[4] or fields[2] ~= ARGV[5] then return reply('STALE') end
if gpu_id ~= '' and not redis.call('ZSCORE', G.idle, gpu_id) then return reply('STALE') end
local followed = redis.call('HMGET', t.run .. after, 'score', 'priority')
local run = {
  state = 'queued', status = 'queued', budget = fields[3], prepare = fields[4] or nil, seed = seed,
  score = followed[1], priority = followed[2], target_gpu = gpu_id ~= '' and gpu_id or nil,
}
local id = create(tag, experiment, run, fields[2])
local source = experiment.source .. ':' .. seed
local ran = redis.call('HGET', t.sources, source)
redis.call('HSET', t.sources, source, ran and ran .. ' ' .. id or id)
redis.call('HSET', t.follow, id, what)
enqueue(tag, id, run.score, gpu_id)
return reply('OK', { id = id })
