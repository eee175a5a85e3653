-- Copies one finished experiment, which the product wrote, N times into another tag: every record
-- and index entry that a decision leaves. Loaded behind the key tables G and T of keys.py.
-- ARGV: template's id, tag, number of copies, creation of the first in µs, step in µs.
local from, tag, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
local created, step = tonumber(ARGV[4]), tonumber(ARGV[5])
local s, t = T(string.sub(from, 20)), T(tag)

local exp, run = redis.call('HGETALL', s.exp .. from), redis.call('HGETALL', s.run .. from)
local attempts = redis.call('LRANGE', s.attempts .. from, 0, -1)
local near = redis.call('ZSCORE', s.near, from)
local keep, entry
for _, member in ipairs(redis.call('ZRANGE', s.keeps, 0, -1)) do
  if string.find(member, from, 1, true) then keep = member end
end
for _, found in ipairs(redis.call('XRANGE', s.journal, '-', '+')) do
  if found[2][4] == from then entry = found[2] end
end
local field = {}
for i = 1, #exp, 2 do field[exp[i]] = i + 1 end
for i = 1, #run, 2 do field['run.' .. run[i]] = i + 1 end
local status, category = run[field['run.status']], exp[field.category]
local verdict, last = run[field['run.verdict']]
local function renamed(text, id)
  local first, stop = string.find(text, from, 1, true)
  return string.sub(text, 1, first - 1) .. id .. string.sub(text, stop + 1)
end

for i = 0, n - 1 do
  local at = string.format('%.0f', created + i * step)
  local id = string.format('exp-%014x-%s', created + i * step, tag)
  exp[field.created] = at
  exp[field.source] = string.format('%064x', created + i * step)
  run[field['run.finished']] = at
  run[field['run.verdict']] = renamed(verdict, id)
  redis.call('HSET', t.exp .. id, unpack(exp))
  redis.call('HSET', t.run .. id, unpack(run))
  for _, attempt in ipairs(attempts) do redis.call('RPUSH', t.attempts .. id, attempt) end
  redis.call('ZADD', t.all, at, id)
  redis.call('ZADD', t.status .. status, at, id)
  redis.call('HSET', t.sources, exp[field.source] .. ':42', id)
  if near then redis.call('ZADD', t.near, near, id) end
  if keep then redis.call('ZADD', t.keeps, at, renamed(keep, id)) end
  entry[4], entry[6] = id, at
  redis.call('XADD', t.journal, '*', unpack(entry))
  last = id
end
redis.call('HINCRBY', t.cats, 'n:' .. category, n)
if keep then redis.call('HINCRBY', t.cats, 'kept:' .. category, n) end
if near then redis.call('HINCRBY', t.cats, 'near:' .. category, n) end
redis.call('HINCRBY', t.tag, 'revision', n)
return last
