-- May this copy run? The questions are asked in this order; every answer but RUN, LOST and OVERDUE leaves the record as it is.
-- step: of a copy whose task has waited, the record's fields of that, as JSON; otherwise ''.
local cycle, seq, attempt, owner, fence, lease_ms, lost_runs, worker, hop, published_hop, deadline, step, seed =
  unpack(ARGV)
cycle, seq = tonumber(cycle), tonumber(seq)
if not present(seed) then return 'MISSING' end
local state, record_cycle = get('state'), number('cycle')
if foreign(state, record_cycle, cycle, seq) then return {'FOREIGN'} end
if (state == 'CANCELLED' or state == 'REJECTED') and record_cycle >= cycle then return {'CANCELLED'} end
if record_cycle > cycle or (record_cycle == cycle and TERMINAL[state]) then return {'DONE'} end
local holder = lease_owner()
local lost = 0
if record_cycle == cycle then
  if number('seq') > seq then return {'STALE'} end
  if get('decision') and number('decidedSeq') == seq then return {'ROUTE', get('decision')} end
end
if holder and holder ~= owner then return {'BUSY'} end
-- The answer was lost and the same claim comes again: it began once.
if holder and record_cycle == cycle and number('seq') == seq and state == 'RUNNING' and get('fence') == fence then
  redis.call('PEXPIRE', KEYS[2], lease_ms)
  return {'RUN'}
end
if record_cycle < cycle then
  if not with_later_message(seed) then return 'MISSING' end
  unset('copyAttempt', 'cancelRequested', 'undo', 'undoGranted')
end
note_published(published_hop)
-- By this clock: that of a worker, which may be ahead, must not end tasks in time.
if deadline ~= '' and NOW > tonumber(deadline) then
  set('state', 'QUEUED', 'cycle', cycle, 'seq', seq, 'published', 1, 'owner', owner, 'fence', fence, 'worker', worker)
  unset('decision', 'decidedSeq', 'before', 'nextAttemptAt', 'rung', 'finishedAt', 'deadReason', 'discarded')
  redis.call('SET', KEYS[2], owner, 'PX', lease_ms)
  commit(0)
  return {'OVERDUE'}
end
-- The same seq, a run that began and a lease that is gone: that run was lost with its worker.
-- The same owner asks again only when its claim's answer was lost, so nothing has run.
if record_cycle == cycle and number('seq') == seq and get('fence') and not holder and get('owner') ~= owner then
  note_lost()
  if get('cancelRequested') == '1' and not may_undo() then
    end_cancelled()
    return {'CANCELLED'}
  end
  lost = redis.call('HINCRBY', KEYS[1], 'lostRuns', 1)
elseif number('seq') ~= seq or record_cycle ~= cycle then
  set('lostRuns', 0)
end
set('state', 'RUNNING', 'cycle', cycle, 'seq', seq, 'attempt', attempt, 'published', 1,
    'owner', owner, 'fence', fence, 'worker', worker)
redis.call('HSETNX', KEYS[1], 'startedAt', NOW)
-- Progress is the task's, not the step's.
unset('decision', 'decidedSeq', 'before', 'nextAttemptAt', 'rung', 'queue', 'finishedAt', 'deadReason',
      step == '' and 'progress' or 'before', 'discarded')
-- The copy is what counts, where Redis has lost its last second.
if step ~= '' then
  for field, value in pairs(cjson.decode(step)) do set(field, value) end
end
redis.call('SET', KEYS[2], owner, 'PX', lease_ms)
add_hop(hop)
commit(0)
return {lost >= tonumber(lost_runs) and 'LOST' or 'RUN'}
