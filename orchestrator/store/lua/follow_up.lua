-- Queues a run that a keep rule asks for: a repeat of a source with the next seed, or the first run
-- of a merge.
-- ARGV: nonce, ttl, tag, revision and last_created of the tag on which the rule rests, id of the run
--       whose place in the queue it takes, seed, what (`SOURCE SEED`, or `merge SEED`), experiment
--       (JSON object of strings; '' for a repeat of the run that it follows).
-- A merge may be what one of its wins was: then it runs with the first seed that this has not had.
-- Replies: OK {id}, STALE: a run was decided, submitted or queued since; UNKNOWN_ID {experiment_id}.
local tag, after, seed, what, experiment = ARGV[3], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local t = T(tag)
local fields = redis.call('HMGET', t.tag, 'revision', 'last_created')
if fields[1] ~= ARGV[4] or fields[2] ~= ARGV[5] then return reply('STALE') end
experiment = experiment ~= '' and cjson.decode(experiment) or nil
while experiment and redis.call('HEXISTS', t.sources, experiment.source .. ':' .. seed) == 1 do
  seed = us(seed + 1)
  what = 'merge ' .. seed
end
local id = follow_up(tag, after, seed, what, experiment)
if not id then return reply('UNKNOWN_ID', { experiment_id = after }) end
return reply('OK', { id = id })
