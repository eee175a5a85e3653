-- Creates a tag. Exactly one caller gets OK.
-- ARGV: nonce, ttl, tag, fields of the tag (JSON object of strings), strategy (the same),
--       journal entry (JSON).
-- Replies: OK {tag}, EXISTS {tag}.
local tag, fields, strategy, t = ARGV[3], cjson.decode(ARGV[4]), cjson.decode(ARGV[5]), T(ARGV[3])
if redis.call('EXISTS', t.tag) == 1 then return reply('EXISTS', { tag = hash_of(t.tag) }) end
local now = us(now_us())
fields.created, fields.revision, strategy.updated = now, '0', now
set_hash(t.tag, fields)
set_hash(t.strategy, strategy)
redis.call('ZADD', G.tags, now, tag)
journal(tag, 'setup', '', now, cjson.decode(ARGV[6]))
event('setup', tag, '')
return reply('OK', { tag = hash_of(t.tag) })
