-- A dead letter starts its next cycle; recorded before the copy is published.
-- deadline: of that cycle; '' without one.
local cycle, seq, decision, hop, deadline = unpack(ARGV)
cycle, seq = tonumber(cycle), tonumber(seq)
if not exists() then return {'MISSING'} end
-- A redrive that was cut off between record and publish: go on with the copy that was decided.
if get('before') and number('cycle') == cycle + 1 and get('decision') then return {'ROUTE', get('decision')} end
local state = get('state')
if not DEAD[state] or get('discarded') then return {'REFUSED', state} end
if number('cycle') ~= cycle or number('seq') ~= seq then return {'REFUSED', state} end
set('before', state, 'state', 'SCHEDULED', 'cycle', cycle + 1, 'decision', decision, 'decidedSeq', seq, 'attempt', 0, 'lostRuns', 0)
if deadline ~= '' then set('deadlineAt', deadline) end
unset('finishedAt', 'startedAt', 'progress', 'cancelRequested', 'letters', 'copyAttempt')
add_hop(hop)
commit(0)
return {'OK', decision}
