-- A step ended in a wait: its next copy, recorded before that copy is published. No attempt failed; the next step has the whole ladder.
-- early: the copy that goes to the work queue at once if a signal that ends the wait has come before, or the task is to be stopped.
local fence, seq, decision, early, step, checkpoint, waiting_for, queue, early_queue, wait_ms, waiting_hop, early_hop, seed =
  unpack(ARGV)
seq = tonumber(seq)
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
if rebuilt then set('fence', fence, 'startedAt', NOW) end
-- Decided already (the answer was lost, or another copy was first): publish what was decided then.
if get('decision') and number('decidedSeq') == seq then return {'ROUTE', get('decision')} end
if TERMINAL[get('state')] then return {'REFUSED'} end
if get('fence') ~= fence or number('seq') ~= seq then return {unclaimed() and 'UNCLAIMED' or 'REFUSED'} end
local over = take_signals(waiting_for)
-- Asked to stop in the middle of the step, which may have begun something elsewhere: the next step undoes that, at once.
if get('cancelRequested') == '1' then
  if not grant_undo() then
    end_cancelled()
    return {'CANCELLED'}
  end
  over = true
end
if over then decision, queue, wait_ms = early, early_queue, 0 end
set('decision', decision, 'decidedSeq', seq, 'state', 'WAITING', 'step', step, 'waitingFor', waiting_for, 'queue', queue,
    'nextAttemptAt', NOW + tonumber(wait_ms), 'lostRuns', 0)
if over then set('state', 'QUEUED') end
if checkpoint ~= '' then set('checkpoint', checkpoint) else unset('checkpoint') end
unset('fence', 'rung', 'error', 'errorType', 'errorRetryable', 'errorFingerprint')
-- Hops are bounded: of a task that polls for hours, the last step takes the place of the one before.
if redis.call('LLEN', KEYS[3]) >= MAX_HOPS / 2 then
  local kinds = {}
  for _, line in ipairs(redis.call('LRANGE', KEYS[3], -3, -1)) do kinds[#kinds + 1] = cjson.decode(line).kind end
  local step = table.concat(kinds, ' ')
  if step == 'waiting started progress' then
    redis.call('LTRIM', KEYS[3], 0, -4)
  elseif string.find(step, ' waiting started', 1, true) then
    redis.call('LTRIM', KEYS[3], 0, -3)
  end
end
add_hop(over and early_hop or waiting_hop)
commit(0)
return {'OK', decision}
