-- Puts the run of a lease that died, or was handed back, into the queue again at its old place.
-- ARGV: nonce, ttl, tag, id, epoch, expected last renewal ('' for any), outcome of the attempt,
--       '1' if it counts as an infrastructure loss (unless a person wanted the run back).
-- Outcomes: OK, DONE {verdict}, LOST, RENEWED, CANCELLED (a person wants it ended), UNKNOWN_ID.
local tag, t, id = ARGV[3], T(ARGV[3]), ARGV[4]
local run = hash_of(t.run .. id)
if not run.state then return reply('UNKNOWN_ID') end
if run.epoch ~= ARGV[5] then return reply('LOST') end
if run.state == 'decided' then return reply('DONE', { verdict = run.verdict }) end
if run.state == 'queued' then return reply('OK') end  -- the same report, sent again
if not is_leased(run) then return reply('LOST') end
if ARGV[6] ~= '' and redis.call('ZSCORE', G.leases, id) ~= ARGV[6] then return reply('RENEWED') end
if run.stop == 'cancel' then return reply('CANCELLED') end

end_lease(t, id, run, ARGV[7])
local lost = run.stop == 'requeue' and 0 or tonumber(ARGV[8])
redis.call('HSET', t.run .. id, 'state', 'queued', 'status', 'queued',
  'losses', (tonumber(run.losses) or 0) + lost)
redis.call('HDEL', t.run .. id, 'gpu_id', 'started', 'stop')
move_status(t, id, run.status, 'queued')
if run.target_gpu and redis.call('EXISTS', G.gpu .. run.target_gpu) == 0 then
  redis.call('HDEL', t.run .. id, 'target_gpu')
  run.target_gpu = nil
end
enqueue(tag, id, run.score, run.target_gpu)
return reply('OK')
