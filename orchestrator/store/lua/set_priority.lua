-- Moves a queued run to the place of another priority; among equals its arrival still counts.
-- ARGV: nonce, ttl, tag, id, operator action with its journal entry (JSON), priority.
-- Replies: OK {position}, UNCHANGED {position}, CONFLICT {state}, STALE, UNKNOWN_ID.
local tag, id, action, priority, t = ARGV[3], ARGV[4], cjson.decode(ARGV[5]), ARGV[6], T(ARGV[3])
local run = redis.call('HMGET', t.run .. id, 'state', 'priority', 'score', 'target_gpu')
if not run[1] then return reply('UNKNOWN_ID', { experiment_id = id }) end
if run[1] ~= 'queued' then return reply('CONFLICT', { state = run[1] }) end
local line = run[4] and G.direct .. run[4] or t.queue
local function placed(name)
  return reply(name, { position = redis.call('ZRANK', line, id) + 1 })
end
local before = run[2] or '0'
if before == priority then return placed('UNCHANGED') end
if stale(t, action) then return reply('STALE') end

local score = rank(run[3] + before * 2 ^ 40, priority)
redis.call('HSET', t.run .. id, 'priority', priority, 'score', score)
redis.call('ZADD', line, score, id)
refresh_ready(tag)
steer(tag, action, id, us(now_us()), before .. ' -> ' .. priority)
return placed('OK')
