-- Takes a note away.
-- ARGV: nonce, ttl, tag, operator action (JSON; its target is the note's id).
-- Outcomes: OK, NO_NOTE, UNKNOWN_TAG.
local tag, t, act = ARGV[3], T(ARGV[3]), cjson.decode(ARGV[4])
if redis.call('EXISTS', t.tag) == 0 then return reply('UNKNOWN_TAG') end
if redis.call('HDEL', t.notes, act.target) == 0 then return reply('NO_NOTE') end
steer(tag, act, '', us(now_us()), 'dropped')
return reply('OK')
