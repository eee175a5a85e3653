-- Lets a paused tag's jobs be claimed again. Its event wakes all waiting claims.
-- ARGV: nonce, ttl, tag, id (''), operator action with its journal entry (JSON).
-- Replies: OK {tag}, UNCHANGED {tag}, STALE, UNKNOWN_TAG.
local tag, action, t = ARGV[3], cjson.decode(ARGV[5]), T(ARGV[3])
local before = redis.call('HMGET', t.tag, 'created', 'paused')
if not before[1] then return reply('UNKNOWN_TAG', { tag = tag }) end
if not before[2] then return reply('UNCHANGED', { tag = hash_of(t.tag) }) end
if stale(t, action) then return reply('STALE') end
redis.call('HDEL', t.tag, 'paused', 'paused_by', 'paused_reason')
refresh_ready(tag)
steer(tag, action, '', us(now_us()), 'resumed')
return reply('OK', { tag = hash_of(t.tag) })
