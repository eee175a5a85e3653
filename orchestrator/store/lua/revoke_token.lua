-- Forgets a token. GPUs and experiments keep its label: a new token of that name has them.
-- ARGV: nonce, ttl, label, operator action (JSON).
-- Replies: OK, NO_TOKEN.
local label, action = ARGV[3], cjson.decode(ARGV[4])
if redis.call('HDEL', G.tokens, label) == 0 then return reply('NO_TOKEN') end
record('', action, '', us(now_us()), 'revoked')
return reply('OK')
