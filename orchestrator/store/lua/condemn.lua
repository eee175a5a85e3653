-- Condemns a leased run, by a forecast made on a snapshot of its tag. Its worker is told to stop it
-- with the next renewal, unless the forecast spares it as an audit. Once for each run.
-- ARGV: nonce, ttl, tag, id, epoch, forecast (JSON), '1' if it spares the run, what the tag's early
--       stop knows now (JSON), journal entry (JSON).
-- Replies: OK, UNCHANGED (it is condemned already, or is to stop for another reason), STALE, LOST,
--          UNKNOWN_ID.
local tag, id, epoch, forecast, spared = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7] == '1'
local stops, step = ARGV[8], cjson.decode(ARGV[9])
local t = T(tag)
local run = hash_of(t.run .. id)
if not run.state then return reply('UNKNOWN_ID', { experiment_id = id }) end
if run.epoch ~= epoch or not is_leased(run) then
  return reply('LOST', { experiment_id = id, epoch = epoch })
end
if run.forecast or run.stop then return reply('UNCHANGED') end
if stale(t, step) then return reply('STALE') end
redis.call('HSET', t.run .. id, 'forecast', forecast)
if not spared then redis.call('HSET', t.run .. id, 'stop', 'early') end
redis.call('SET', t.stops, stops)
redis.call('HINCRBY', t.tag, 'revision', 1)
journal(tag, 'condemned', id, us(now_us()), step)
event('condemned', tag, id, { spared = spared })
return reply('OK')
