-- Reads in one step what a keep rule that queues runs rests on when it says what runs next.
-- ARGV: '', '', tag.
-- Replies: OK {race, due: see the prelude}, UNKNOWN_TAG.
local tag, t = ARGV[3], T(ARGV[3])
if redis.call('EXISTS', t.tag) == 0 then return reply('UNKNOWN_TAG', { tag = tag }) end
return reply('OK', { race = redis.call('GET', t.race) or nil, due = due(t) })
