-- A failed attempt and its next copy, recorded before that copy is published.
-- An empty state means dead: only the confirm makes that final.
local fence, seq, decision, state, rung, wait_ms, queue, error_type, error_text, retryable, dead_reason, failed_hop, next_hop,
  error_fingerprint, seed = unpack(ARGV)
seq = tonumber(seq)
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
if rebuilt then set('fence', fence, 'startedAt', NOW) end
-- Decided already (the answer was lost, or another copy was first): publish what was decided then.
if get('decision') and number('decidedSeq') == seq then return {'ROUTE', get('decision')} end
if TERMINAL[get('state')] then return {'REFUSED'} end
if get('fence') ~= fence or number('seq') ~= seq then return {unclaimed() and 'UNCLAIMED' or 'REFUSED'} end
-- Of a type that undoes: the failed step may have had its effect, so the next one undoes it.
if get('cancelRequested') == '1'
  and (state == '' or error_type == 'cancelled' or get('undo') ~= '1' or not grant_undo()) then
  add_hop(failed_hop)
  end_cancelled()
  return {'CANCELLED'}
end
set('decision', decision, 'decidedSeq', seq, 'errorType', error_type, 'error', error_text, 'errorRetryable', retryable,
    'errorFingerprint', error_fingerprint, 'lostRuns', 0)
unset('fence')
if state ~= '' then
  set('state', state, 'rung', rung, 'queue', queue, 'nextAttemptAt', NOW + tonumber(wait_ms))
end
if dead_reason ~= '' then set('deadReason', dead_reason) end
add_hop(failed_hop)
add_hop(next_hop)
commit(0)
return {'OK', decision}
