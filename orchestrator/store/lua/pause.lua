-- Keeps a tag's jobs from being claimed. What runs goes on, and what is submitted waits.
-- ARGV: nonce, ttl, tag, id (''), operator action with its journal entry (JSON).
-- Replies: OK {tag}, UNCHANGED {tag}, STALE, UNKNOWN_TAG.
local tag, action, t = ARGV[3], cjson.decode(ARGV[5]), T(ARGV[3])
local before = redis.call('HMGET', t.tag, 'created', 'paused')
if not before[1] then return reply('UNKNOWN_TAG', { tag = tag }) end
if before[2] then return reply('UNCHANGED', { tag = hash_of(t.tag) }) end
if stale(t, action) then return reply('STALE') end
local now = us(now_us())
redis.call('HSET', t.tag, 'paused', now, 'paused_by', action.by, 'paused_reason', action.reason)
refresh_ready(tag)
steer(tag, action, '', now, 'paused')
return reply('OK', { tag = hash_of(t.tag) })
