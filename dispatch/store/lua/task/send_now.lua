-- A task's wait is over before its time: a copy of the next seq, recorded before it is published to the work queue.
-- seq: that copy's. states: those in which a task waits, each between commas. A decision whose copy was not confirmed (its worker
-- died, or is about to publish it) is passed over: its seq counts as used, and the run that led to it is over.
local cycle, seq, decision, states, queue, hop = unpack(ARGV)
cycle, seq = tonumber(cycle), tonumber(seq)
if not exists() then return {'REFUSED'} end
local state = get('state')
local decided = get('decision') and number('decidedSeq')
if decided and state == 'QUEUED' then return {'ROUTE', get('decision')} end
if not string.find(states, ',' .. state .. ',', 1, true) then return {'REFUSED'} end
local last = decided and decided + 1 or number('seq')
if number('cycle') ~= cycle or last + 1 ~= seq then return {'REFUSED'} end
redis.call('DEL', KEYS[2])
outlive_waiting_copy()
set('seq', last, 'decision', decision, 'decidedSeq', last, 'state', 'QUEUED', 'queue', queue)
unset('rung', 'nextAttemptAt', 'fence', 'owner')
add_hop(hop)
commit(0)
return {'OK', decision}
