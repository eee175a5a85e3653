-- Reads in one step what a decision rests on, or what suggest and summary tell of a tag.
-- ARGV: '', '', tag, id ('' for the tag alone), how many keeps to tell of ('' for a decision, which
--       asks for none of the last six), µs beyond its budget after which a hand-run is given up, how
--       many crashes and as many time-outs to tell of.
-- Outcomes: OK {tag, strategy, counts, near, recent, run, exp, keeps: [json, time, ..],
--           cats: [field, n, ..], pool: [all, idle, busy], abandoned, notes {id: json},
--           failures: [id, ..]}, UNKNOWN_TAG, UNKNOWN_ID.
local t, id = T(ARGV[3]), ARGV[4]
local tag = hash_of(t.tag)
if not tag.created then return reply('UNKNOWN_TAG') end
local out = {
  tag = tag,
  strategy = hash_of(t.strategy),
  near = redis.call('ZCARD', t.near),
  recent = redis.call('LRANGE', t.recent, 0, -1),
  counts = { infra_lost = tonumber(tag.infra_lost) or 0 },
}
for _, status in ipairs({ 'queued', 'running', 'keep', 'discard', 'crash', 'timeout', 'cancelled' }) do
  out.counts[status] = redis.call('ZCARD', t.status .. status)
end
if id ~= '' then
  out.run, out.exp = hash_of(t.run .. id), hash_of(t.exp .. id)
  if not out.run.state then return reply('UNKNOWN_ID') end
end
if ARGV[5] ~= '' then
  out.keeps = redis.call('ZRANGE', t.keeps, -tonumber(ARGV[5]), -1, 'WITHSCORES')
  out.notes = hash_of(t.notes)
  out.cats = redis.call('HGETALL', t.cats)
  out.pool = {
    redis.call('ZCARD', G.gpus), redis.call('ZCARD', G.idle), redis.call('ZCARD', G.busy),
  }
  local before = now_us() - tag.budget * 1000000 - ARGV[6]
  out.abandoned = redis.call('ZCOUNT', t.hand, '-inf', us(before))
  out.failures = {}
  if ARGV[7] ~= '0' then
    for _, status in ipairs({ 'crash', 'timeout' }) do
      local ids = redis.call('ZRANGE', t.status .. status, -tonumber(ARGV[7]), -1)
      for _, failed in ipairs(ids) do out.failures[#out.failures + 1] = failed end
    end
  end
end
return reply('OK', out)
