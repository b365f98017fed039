-- A dead letter starts its next cycle; recorded before the copy is published. ARGV: 1 cycle, 2 seq, 3 decision, 4 hop.
if not exists() then return {'MISSING'} end
local cycle, seq = tonumber(ARGV[1]), tonumber(ARGV[2])
-- A redrive that was cut off between record and publish: go on with the copy that was decided.
if get('before') and number('cycle') == cycle + 1 and get('decision') then return {'ROUTE', get('decision')} end
local state = get('state')
if not BURIED[state] or get('discarded') then return {'REFUSED', state} end
if number('cycle') ~= cycle or number('seq') ~= seq then return {'REFUSED', state} end
set('before', state, 'state', 'SCHEDULED', 'cycle', cycle + 1, 'decision', ARGV[3], 'decidedSeq', seq, 'attempt', 0, 'lostRuns', 0)
forget('finishedAt', 'startedAt', 'progress', 'cancelRequested', 'letters')
hop(ARGV[4])
commit(0)
return {'OK', ARGV[3]}
