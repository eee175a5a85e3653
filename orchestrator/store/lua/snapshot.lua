-- Reads in one step what a decision rests on.
-- ARGV: '', '', tag, id ('' for the tag alone).
-- Outcomes: OK {tag, strategy, counts, near, recent, run, exp}, UNKNOWN_TAG, UNKNOWN_ID.
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
return reply('OK', out)
