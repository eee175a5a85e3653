-- Asks the worker of a leased run to stop it, to end it or to put it back into the queue; the worker
-- learns of it with its next renewal. What was asked last counts. A run that is not leased is
-- cancelled by a decision, or run again under another id (repeat.lua).
-- ARGV: nonce, ttl, tag, id, 'cancel' or 'requeue', operator action (JSON).
-- Outcomes: OK, UNCHANGED, DONE, CONFLICT {state}, UNKNOWN_ID.
local tag, t, id, what = ARGV[3], T(ARGV[3]), ARGV[4], ARGV[5]
local run = redis.call('HMGET', t.run .. id, 'state', 'stop')
if not run[1] then return reply('UNKNOWN_ID') end
if run[1] == 'decided' then return reply('DONE') end
if run[1] ~= 'leased' and run[1] ~= 'running' then return reply('CONFLICT', { state = run[1] }) end
if run[2] == what then return reply('UNCHANGED') end
redis.call('HSET', t.run .. id, 'stop', what)
steer(tag, cjson.decode(ARGV[6]), id, us(now_us()), 'its worker was asked to stop it')
event('cancelling', tag, id, { requeue = what == 'requeue' })
return reply('OK')
