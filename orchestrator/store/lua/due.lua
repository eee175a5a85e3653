-- Reads in one step what a keep rule that queues runs rests on when it says what runs next.
-- ARGV: '', '', tag.
-- Replies: OK {tag, race, workload: see the prelude}, UNKNOWN_TAG.
local tag, t = ARGV[3], T(ARGV[3])
local fields = hash_of(t.tag)
if not fields.created then return reply('UNKNOWN_TAG', { tag = tag }) end
local race = redis.call('GET', t.race) or nil
return reply('OK', { tag = fields, race = race, workload = workload(t, fields) })
