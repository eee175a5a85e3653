-- Registers an experiment and puts its run into the queue.
-- ARGV: nonce, ttl, tag, experiment (JSON object of strings), run (the same), '1' to admit a source
--       that ran before with this seed.
-- Replies: OK {id, position}, UNKNOWN_TAG, UNKNOWN_PARENT, DUPLICATE {existing}.
local tag, experiment, run = ARGV[3], cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local repeat_admitted = ARGV[6] == '1'
local t = T(tag)
local tag_fields = redis.call('HMGET', t.tag, 'budget', 'best_id')
if not tag_fields[1] then return reply('UNKNOWN_TAG', { tag = tag }) end
-- Without a best: the first submission that is still to be decided, the baseline.
experiment.parent_id = experiment.parent_id or tag_fields[2] or first_leased(t, '+inf')
  or redis.call('ZRANGE', t.status .. 'queued', 0, 0)[1]
if experiment.parent_id and redis.call('EXISTS', t.exp .. experiment.parent_id) == 0 then
  return reply('UNKNOWN_PARENT', { tag = tag, parent_id = experiment.parent_id })
end
local ran = redis.call('HGET', t.sources, experiment.source .. ':' .. run.seed)
if ran and not repeat_admitted then
  return reply('DUPLICATE', { existing = string.match(ran, '^%S+') })
end

run.score = queue_score(run.priority)
local id = create_queued(tag, experiment, run)
return reply('OK', { id = id, position = redis.call('ZRANK', t.queue, id) + 1 })
