-- Records a hand-run: the caller trains by itself and reports.
-- ARGV: nonce, ttl, tag, experiment (JSON object of strings), run (the same).
-- Replies: OK {id}, RACE (its keep rule repeats runs, and so needs sources), UNKNOWN_TAG, UNKNOWN_PARENT.
local tag, experiment, run, t = ARGV[3], cjson.decode(ARGV[4]), cjson.decode(ARGV[5]), T(ARGV[3])
local tag_fields = redis.call('HMGET', t.tag, 'budget', 'prepare', 'last_created', 'keep_rule')
if not tag_fields[1] then return reply('UNKNOWN_TAG', { tag = tag }) end
if tag_fields[4] == 'race' then return reply('RACE') end
if experiment.parent_id and redis.call('EXISTS', t.exp .. experiment.parent_id) == 0 then
  return reply('UNKNOWN_PARENT', { tag = tag, parent_id = experiment.parent_id })
end
run.state, run.status = 'hand', 'running'
run.budget, run.prepare = tag_fields[1], tag_fields[2] or nil
local id = create(tag, experiment, run, tag_fields[3])
redis.call('ZADD', t.hand, run.started, id)
event('registered', tag, id)
return reply('OK', { id = id })
