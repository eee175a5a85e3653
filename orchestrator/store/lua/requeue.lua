-- Puts the run of a lease that died, or was handed back, into the queue again at its old place.
-- ARGV: nonce, ttl, tag, id, epoch, expected last renewal ('' for any), how the attempt ended,
--       '1' if it counts as an infrastructure loss (unless a person wanted the run back).
-- Replies: OK, DONE {verdict}, LOST, RENEWED, CANCELLED (it is to end: a person wants that, or the
--          early stop), UNKNOWN_ID.
local tag, id, epoch, renewal, ending, loss = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local t = T(tag)
local function lost() return reply('LOST', { experiment_id = id, epoch = epoch }) end
local run = hash_of(t.run .. id)
if not run.state then return reply('UNKNOWN_ID', { experiment_id = id }) end
if run.epoch ~= epoch then return lost() end
if is_over(run.state) then return reply('DONE', { verdict = run.verdict }) end
if run.state == 'queued' then return reply('OK') end  -- the same report, sent again
if not is_leased(run) then return lost() end
if renewal ~= '' and redis.call('ZSCORE', G.leases, id) ~= renewal then return reply('RENEWED') end
if run.stop == 'cancel' or run.stop == 'early' then return reply('CANCELLED') end

end_lease(t, id, run, ending)
if run.stop == 'requeue' then loss = 0 end
redis.call('HSET', t.run .. id, 'state', 'queued', 'status', 'queued',
  'losses', (tonumber(run.losses) or 0) + loss)
redis.call('HDEL', t.run .. id, 'gpu_id', 'started', 'stop')
move_status(t, id, run.status, 'queued')
local target = run.target_gpu
-- A GPU that lost the run, or takes none now, may never be back: others may have it.
if target and (tonumber(loss) > 0
    or not (redis.call('ZSCORE', G.idle, target) or redis.call('ZSCORE', G.busy, target))) then
  redis.call('HDEL', t.run .. id, 'target_gpu')
  target = nil
end
enqueue(tag, id, run.score, target)
return reply('OK')
