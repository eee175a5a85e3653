-- Keeps a tag's jobs from being claimed. What runs goes on, and what is submitted waits.
-- ARGV: nonce, ttl, tag, operator action (JSON).
-- Outcomes: OK {tag}, UNCHANGED {tag}, UNKNOWN_TAG.
local tag, t = ARGV[3], T(ARGV[3])
local before = redis.call('HMGET', t.tag, 'created', 'paused')
if not before[1] then return reply('UNKNOWN_TAG') end
if before[2] then return reply('UNCHANGED', { tag = hash_of(t.tag) }) end
local act, now = cjson.decode(ARGV[4]), us(now_us())
redis.call('HSET', t.tag, 'paused', now, 'paused_by', act.by, 'paused_reason', act.reason)
refresh_ready(tag)
steer(tag, act, '', now, 'paused')
return reply('OK', { tag = hash_of(t.tag) })
