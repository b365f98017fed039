-- The recorder read a dead letter: the record becomes FAIL, however the dead letter came there. Idempotent.
local cycle, seq, state, reason, error_type, error_text, retryable, error_fingerprint, queue, hop, published_hop, seed = unpack(ARGV)
cycle, seq = tonumber(cycle), tonumber(seq)
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
if not rebuilt then
  local record_state, record_cycle = get('state'), number('cycle')
  if record_cycle > cycle then return 'OLD' end
  if foreign(record_state, record_cycle, cycle, seq) then return 'FOREIGN' end
  if record_cycle == cycle then
    -- A crash between publish and hand-over leaves two dead letters: the janitor removes the second one.
    if DEAD[record_state] then return redis.call('HINCRBY', KEYS[1], 'letters', 1) > 1 and 'AGAIN' or 'DONE' end
    if TERMINAL[record_state] then return 'OLD' end
    if number('seq') > seq then return 'STALE' end
    local decided = get('decision') and number('decidedSeq')
    -- A duplicate of a copy whose hand-over is decided: the next copy is the task now.
    if decided and decided == seq then return 'STALE' end
    -- The task is running; its outcome decides. Retry after the lease.
    if not decided and lease_owner() then return 'BUSY' end
  elseif lease_owner() then
    return 'BUSY'
  end
end
if number('cycle') < cycle and not rebuilt and not with_later_message(seed) then return 'MISSING' end
if not with_message(seed) then return 'MISSING' end
note_published(published_hop)
if get('fence') and number('cycle') == cycle and number('seq') == seq then note_lost() end
set('state', state, 'cycle', cycle, 'seq', seq, 'published', 1, 'deadReason', reason, 'queue', queue, 'finishedAt', NOW)
if error_type ~= '' then
  set('errorType', error_type, 'error', error_text, 'errorRetryable', retryable, 'errorFingerprint', error_fingerprint)
end
set('letters', 1)
unset('decision', 'decidedSeq', 'before', 'fence', 'owner', 'nextAttemptAt', 'rung', 'discarded')
add_hop(hop)
commit(0)
return 'OK'
