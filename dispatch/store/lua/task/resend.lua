-- The sweeper saw no sign of a published task for longer than any queue can hold it: it decides a copy of the next seq.
-- revision: as the sweeper read it.
local revision, seq, decision, queue, hop = unpack(ARGV)
if not exists() or number('revision') ~= tonumber(revision) or number('seq') ~= tonumber(seq) then return 'LATE' end
if TERMINAL[get('state')] or lease_owner() or get('decision') then return 'LATE' end
if get('fence') then note_lost() end
if get('cancelRequested') == '1' and not may_undo() then
  end_cancelled()
  return 'CANCELLED'
end
set('decision', decision, 'decidedSeq', seq, 'state', 'QUEUED', 'queue', queue)
unset('fence', 'owner')
add_hop(hop)
commit(0)
return 'OK'
