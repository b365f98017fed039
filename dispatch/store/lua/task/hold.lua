-- A copy that may not run yet: the next one, for the hold queue, recorded before it is published. The questions are those of `claim`, in
-- its order; no attempt is used up.
-- until_: epoch milliseconds at which that copy leaves the hold queue by itself.
-- step: of a copy whose task has waited, the record's fields of that, as JSON; otherwise ''.
local cycle, seq, decision, held_by, queue, until_, hop, published_hop, step, seed = unpack(ARGV)
cycle, seq = tonumber(cycle), tonumber(seq)
if not present(seed) then return 'MISSING' end
local state, record_cycle = get('state'), number('cycle')
if foreign(state, record_cycle, cycle, seq) then return {'FOREIGN'} end
if (state == 'CANCELLED' or state == 'REJECTED') and record_cycle >= cycle then return {'CANCELLED'} end
if record_cycle > cycle or (record_cycle == cycle and TERMINAL[state]) then return {'DONE'} end
if record_cycle == cycle then
  if number('seq') > seq then return {'STALE'} end
  if get('decision') and number('decidedSeq') == seq then return {'ROUTE', get('decision')} end
end
if lease_owner() then return {'BUSY'} end
-- To be stopped, with something to undo: nothing holds that up.
if record_cycle == cycle and get('cancelRequested') == '1' and may_undo() then return {'UNDO'} end
if record_cycle < cycle and not with_later_message(seed) then return 'MISSING' end
note_published(published_hop)
if record_cycle < cycle then
  set('attempt', 0, 'lostRuns', 0)
  unset('startedAt', 'progress', 'cancelRequested', 'undoGranted', 'letters', 'copyAttempt')
elseif number('seq') == seq and get('fence') then
  note_lost()
  if get('cancelRequested') == '1' and not may_undo() then
    end_cancelled()
    return {'CANCELLED'}
  end
  redis.call('HINCRBY', KEYS[1], 'lostRuns', 1)
end
set('state', 'HELD', 'cycle', cycle, 'seq', seq, 'published', 1, 'decision', decision, 'decidedSeq', seq, 'heldBy', held_by, 'queue', queue)
unset('fence', 'owner', 'before', 'nextAttemptAt', 'rung', 'finishedAt', 'deadReason', 'discarded')
if step ~= '' then
  for field, value in pairs(cjson.decode(step)) do set(field, value) end
end
outlive(tonumber(until_))
add_hop(hop)
commit(0)
return {'HELD', decision}
