-- A run's end that Redis had acknowledged and lost with its last seconds: its copy is acked, nothing else brings it back. Whatever the
-- record was before, and whichever run has the task since: it had ended. Where nothing was lost, nothing changes.
local cycle, seq, fence, owner, result, ttl, started, hop, seed = unpack(ARGV)
cycle = tonumber(cycle)
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
local record_cycle = number('cycle')
if record_cycle > cycle or (record_cycle == cycle and TERMINAL[get('state')]) then return 'KEPT' end
if record_cycle < cycle then
  if not with_later_message(seed) then return 'MISSING' end
  set('seq', seq)
  unset('copyAttempt', 'cancelRequested', 'undo', 'undoGranted')
end
if get('fence') ~= fence then add_hop(started) end
set('cycle', cycle, 'published', 1)
redis.call('HSETNX', KEYS[1], 'startedAt', NOW)
unset('decision', 'decidedSeq', 'before', 'deadReason', 'discarded')
redis.call('DEL', KEYS[2])
succeed(fence, owner, result, ttl, hop)
return 'OK'
