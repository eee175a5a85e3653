-- Leaves a note that suggest gives to agents; its text is the operator action's reason.
-- ARGV: nonce, ttl, tag, operator action (JSON), how many notes a tag may have.
-- Replies: OK {id, note}, FULL, UNKNOWN_TAG.
local tag, action, at_most, t = ARGV[3], cjson.decode(ARGV[4]), tonumber(ARGV[5]), T(ARGV[3])
local revision = redis.call('HGET', t.tag, 'revision')
if not revision then return reply('UNKNOWN_TAG', { tag = tag }) end
if redis.call('HLEN', t.notes) >= at_most then return reply('FULL') end
local now, id = us(now_us()), 'note-' .. revision + 1
local note = cjson.encode({ text = action.reason, by = action.by, at = now })
redis.call('HSET', t.notes, id, note)
action.target = id
steer(tag, action, '', now, 'left')
return reply('OK', { id = id, note = note })
