-- Asks the worker of a leased run to stop it, to end it or to put it back into the queue; the next
-- renewal tells the worker. The last request counts. A run that is not leased is cancelled by a
-- decision, or run again under another id (repeat.lua).
-- ARGV: nonce, ttl, tag, id, operator action with its journal entry (JSON), 'cancel' or 'requeue'.
-- Replies: OK, UNCHANGED, DONE, CONFLICT {state}, STALE, UNKNOWN_ID.
local tag, id, action, what, t = ARGV[3], ARGV[4], cjson.decode(ARGV[5]), ARGV[6], T(ARGV[3])
local run = redis.call('HMGET', t.run .. id, 'state', 'stop')
if not run[1] then return reply('UNKNOWN_ID', { experiment_id = id }) end
if is_over(run[1]) then return reply('DONE') end
if not is_leased({ state = run[1] }) then return reply('CONFLICT', { state = run[1] }) end
if run[2] == what then return reply('UNCHANGED') end
if stale(t, action) then return reply('STALE') end
redis.call('HSET', t.run .. id, 'stop', what)
steer(tag, action, id, us(now_us()), 'its worker was asked to stop it')
event('cancelling', tag, id, { requeue = what == 'requeue' })
return reply('OK')
