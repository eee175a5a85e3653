-- Takes a note away.
-- ARGV: nonce, ttl, tag, id (''), operator action with its journal entry (JSON; its target is the
--       note's id).
-- Replies: OK, NO_NOTE, STALE, UNKNOWN_TAG.
local tag, action, t = ARGV[3], cjson.decode(ARGV[5]), T(ARGV[3])
if redis.call('EXISTS', t.tag) == 0 then return reply('UNKNOWN_TAG', { tag = tag }) end
if redis.call('HEXISTS', t.notes, action.target) == 0 then return reply('NO_NOTE') end
if stale(t, action) then return reply('STALE') end
redis.call('HDEL', t.notes, action.target)
steer(tag, action, '', us(now_us()), 'dropped')
return reply('OK')
