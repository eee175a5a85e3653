-- Keeps a new token by its label; its secret is kept as a hash only.
-- ARGV: nonce, ttl, label, token (JSON object of strings: role, tags, sha256), seconds until it
--       expires ('' for never), operator action (JSON).
-- Replies: OK {token}, EXISTS.
local label, token, seconds, action = ARGV[3], cjson.decode(ARGV[4]), ARGV[5], cjson.decode(ARGV[6])
if redis.call('HEXISTS', G.tokens, label) == 1 then return reply('EXISTS') end
local now = now_us()
token.created = us(now)
if seconds ~= '' then token.expires = us(now + seconds * 1e6) end
redis.call('HSET', G.tokens, label, cjson.encode(token))
record('', action, '', token.created, 'created')
return reply('OK', { token = cjson.encode(token) })
