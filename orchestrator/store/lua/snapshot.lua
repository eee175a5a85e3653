-- Reads in one step what a decision rests on, or what suggest and summary show of a tag.
-- ARGV: '', '', tag, id ('' for the tag alone), and unless it is for a decision, whose reply lacks
--       keeps and all that follow: number of newest keeps, µs beyond its budget after which a
--       hand-run counts as abandoned, number of newest crashes and of newest time-outs.
-- Replies: OK {tag, strategy, counts, near, recent, race, follows, stops, run, exp, workload (as if
--           the run were decided: see the prelude), keeps: [json, time, ..],
--           cats: [field, n, ..], pool: [all, idle, busy], abandoned, notes {id: json},
--           failures: [id, ..]}, UNKNOWN_TAG, UNKNOWN_ID.
local tag, id, keeps, grace_us, failures = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local t = T(tag)
local fields = hash_of(t.tag)
if not fields.created then
  if id ~= '' then return reply('UNKNOWN_ID', { experiment_id = id }) end
  return reply('UNKNOWN_TAG', { tag = tag })
end
local out = {
  tag = fields,
  strategy = hash_of(t.strategy),
  near = redis.call('ZCARD', t.near),
  recent = redis.call('LRANGE', t.recent, 0, -1),
  counts = { infra_lost = tonumber(fields.infra_lost) or 0 },
}
local statuses = { 'queued', 'running', 'keep', 'discard', 'crash', 'timeout', 'cancelled' }
if fields.keep_rule then  -- not greedy
  statuses[8], statuses[9] = 'candidate', 'repeat'
  out.race = redis.call('GET', t.race) or nil
  out.follows = redis.call('HGET', t.follow, id) or nil
end
if fields.early_stop then out.stops = redis.call('GET', t.stops) or nil end
for _, status in ipairs(statuses) do
  out.counts[status] = redis.call('ZCARD', t.status .. status)
end
if id ~= '' then
  out.run, out.exp = hash_of(t.run .. id), hash_of(t.exp .. id)
  if not out.run.state then return reply('UNKNOWN_ID', { experiment_id = id }) end
  if fields.keep_rule then out.workload = workload(t, fields, id, out.run) end
end
if keeps then
  out.keeps = redis.call('ZRANGE', t.keeps, -tonumber(keeps), -1, 'WITHSCORES')
  out.notes = hash_of(t.notes)
  out.cats = redis.call('HGETALL', t.cats)
  out.pool = {
    redis.call('ZCARD', G.gpus), redis.call('ZCARD', G.idle), redis.call('ZCARD', G.busy),
  }
  local before = now_us() - fields.budget * 1000000 - grace_us
  out.abandoned = redis.call('ZCOUNT', t.hand, '-inf', us(before))
  out.failures = {}
  if failures ~= '0' then
    for _, status in ipairs({ 'crash', 'timeout' }) do
      local ids = redis.call('ZRANGE', t.status .. status, -tonumber(failures), -1)
      for _, failed in ipairs(ids) do out.failures[#out.failures + 1] = failed end
    end
  end
end
return reply('OK', out)
