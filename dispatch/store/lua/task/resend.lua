-- The sweeper heard nothing of a published task for longer than any queue could hold it: a copy of the next seq is decided.
-- ARGV: 1 revision that the sweeper read, 2 seq, 3 decision, 4 queue, 5 hop.
if not exists() or number('revision') ~= tonumber(ARGV[1]) or number('seq') ~= tonumber(ARGV[2]) then return 'LATE' end
if TERMINAL[get('state')] or lease_owner() or get('decision') then return 'LATE' end
set('decision', ARGV[3], 'decidedSeq', ARGV[2], 'state', 'QUEUED', 'queue', ARGV[4])
forget('fence', 'owner')
hop(ARGV[5])
commit(0)
return 'OK'
