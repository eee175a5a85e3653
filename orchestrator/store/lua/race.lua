-- Lets a tag keep by `race` from now on.
-- ARGV: nonce, ttl, tag, id (''), operator action with its journal entry (JSON), the race (JSON).
-- Replies: OK {tag}, UNCHANGED {tag}, HAND {n}: runs by hand that must end first, as their sources
--          are not here, STALE, UNKNOWN_TAG.
local tag, action, t = ARGV[3], cjson.decode(ARGV[5]), T(ARGV[3])
local before = redis.call('HMGET', t.tag, 'created', 'keep_rule')
if not before[1] then return reply('UNKNOWN_TAG', { tag = tag }) end
if before[2] == 'race' then return reply('UNCHANGED', { tag = hash_of(t.tag) }) end
if stale(t, action) then return reply('STALE') end
local by_hand = redis.call('ZCARD', t.hand)
if by_hand > 0 then return reply('HAND', { n = by_hand }) end
redis.call('HSET', t.tag, 'keep_rule', 'race')
redis.call('SET', t.race, ARGV[6])
steer(tag, action, '', us(now_us()), 'race')
return reply('OK', { tag = hash_of(t.tag) })
