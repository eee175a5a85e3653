-- Leaves a note that suggest gives to agents; its text is the operator action's reason.
-- ARGV: nonce, ttl, tag, operator action (JSON), how many notes a tag may have.
-- Outcomes: OK {id, note}, FULL, UNKNOWN_TAG.
local tag, t = ARGV[3], T(ARGV[3])
local revision = redis.call('HGET', t.tag, 'revision')
if not revision then return reply('UNKNOWN_TAG') end
if redis.call('HLEN', t.notes) >= tonumber(ARGV[5]) then return reply('FULL') end
local act, now, id = cjson.decode(ARGV[4]), us(now_us()), 'note-' .. revision + 1
local note = cjson.encode({ text = act.reason, by = act.by, at = now })
redis.call('HSET', t.notes, id, note)
act.target = id
steer(tag, act, '', now, 'left')
return reply('OK', { id = id, note = note })
