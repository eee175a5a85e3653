-- Asks the worker of a leased run to stop it; it learns of it with its next renewal. A run that is
-- not leased is cancelled by a decision instead.
-- ARGV: nonce, ttl, tag, id.
-- Outcomes: OK, DONE, CONFLICT {state}, UNKNOWN_ID.
local tag, t, id = ARGV[3], T(ARGV[3]), ARGV[4]
local state = redis.call('HGET', t.run .. id, 'state')
if not state then return reply('UNKNOWN_ID') end
if state == 'decided' then return reply('DONE') end
if state ~= 'leased' and state ~= 'running' then return reply('CONFLICT', { state = state }) end
redis.call('HSET', t.run .. id, 'cancel', '1')
event('cancelling', tag, id)
return reply('OK')
