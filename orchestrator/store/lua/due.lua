-- Reads in one step what the keep rule `race` rests on when it says what runs next.
-- ARGV: '', '', tag.
-- Replies: OK {tag, race, running: [[id, seed], ..] in order of creation, follow {id: what}, ideas,
--          idle, gpus, quiet}: `ideas` are queued runs that no rule asked for, `idle` and `gpus` count
--          the GPUs that may run the tag, `quiet` are seconds without a submission or a decision;
--          UNKNOWN_TAG.
local tag, t = ARGV[3], T(ARGV[3])
local fields = hash_of(t.tag)
if not fields.created then return reply('UNKNOWN_TAG', { tag = tag }) end
local function serving(gpus)
  local n = 0
  for _, gpu_id in ipairs(redis.call('ZRANGE', gpus, 0, -1)) do
    local gpu = redis.call('HMGET', G.gpu .. gpu_id, 'profile', 'gpu_name')
    if serves(gpu[1], fields.profile) and is_of(gpu[2], fields.gpu_model) then n = n + 1 end
  end
  return n
end
local out = { tag = fields, race = redis.call('GET', t.race) or nil, follow = hash_of(t.follow) }
out.running, out.ideas = {}, redis.call('ZCARD', t.status .. 'queued')
for _, id in ipairs(redis.call('ZRANGE', t.status .. 'running', 0, -1)) do
  out.running[#out.running + 1] = { id, redis.call('HGET', t.run .. id, 'seed') }
end
for id in pairs(out.follow) do
  if redis.call('HGET', t.run .. id, 'status') == 'queued' then out.ideas = out.ideas - 1 end
end
out.idle = serving(G.idle)
out.gpus = out.idle + serving(G.busy)
local last = math.max(tonumber(fields.last_created) or 0, tonumber(fields.last_decided) or 0)
out.quiet = (now_us() - math.max(last, tonumber(fields.created))) / 1000000
return reply('OK', out)
