-- Takes a note away.
-- ARGV: nonce, ttl, tag, operator action (JSON; its target is the note's id).
-- Replies: OK, NO_NOTE, UNKNOWN_TAG.
local tag, action, t = ARGV[3], cjson.decode(ARGV[4]), T(ARGV[3])
if redis.call('EXISTS', t.tag) == 0 then return reply('UNKNOWN_TAG', { tag = tag }) end
if redis.call('HDEL', t.notes, action.target) == 0 then return reply('NO_NOTE') end
steer(tag, action, '', us(now_us()), 'dropped')
return reply('OK')
