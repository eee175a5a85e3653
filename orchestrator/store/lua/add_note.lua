-- Leaves a note that suggest gives to agents; its text is the operator action's reason.
-- ARGV: nonce, ttl, tag, id (''), operator action with its journal entry (JSON; its target is the
--       note's id), how many notes a tag may have.
-- Replies: OK {id, note}, FULL, STALE, UNKNOWN_TAG.
local tag, action, at_most, t = ARGV[3], cjson.decode(ARGV[5]), tonumber(ARGV[6]), T(ARGV[3])
if redis.call('EXISTS', t.tag) == 0 then return reply('UNKNOWN_TAG', { tag = tag }) end
if redis.call('HLEN', t.notes) >= at_most then return reply('FULL') end
if stale(t, action) then return reply('STALE') end
local now, id = us(now_us()), action.target
local note = cjson.encode({ text = action.reason, by = action.by, at = now })
redis.call('HSET', t.notes, id, note)
steer(tag, action, '', now, 'left')
return reply('OK', { id = id, note = note })
