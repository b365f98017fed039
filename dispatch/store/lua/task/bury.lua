-- The dead tap saw a letter: the record says so, however the letter came there. Idempotent.
-- ARGV: 1 cycle, 2 seq, 3 state, 4 reason, 5 error type, 6 error, 7 retryable, 8 queue, 9 hop, 10 seed.
local cycle, seq = tonumber(ARGV[1]), tonumber(ARGV[2])
local known = exists()
if not known then
  if ARGV[10] == '' then return 'MISSING' end
  recreate(ARGV[10])
else
  local state, was = get('state'), number('cycle')
  if was > cycle then return 'OLD' end
  if was == cycle then
    -- A crash between publish and hand-over leaves two letters: the janitor takes the second one out.
    if BURIED[state] then return redis.call('HINCRBY', KEYS[1], 'letters', 1) > 1 and 'AGAIN' or 'DONE' end
    if TERMINAL[state] then return 'OLD' end
    if number('seq') > seq then return 'STALE' end
    local decided = get('decision') and number('decidedSeq')
    -- A duplicate of a copy whose next hop is decided: that next copy is the task now.
    if decided and decided == seq then return 'STALE' end
    -- Somebody runs it: what he says counts. Ask again when his lease is over.
    if not decided and lease_owner() then return 'BUSY' end
  elseif lease_owner() then
    return 'BUSY'
  end
end
set('state', ARGV[3], 'cycle', cycle, 'seq', seq, 'published', 1, 'deadReason', ARGV[4], 'queue', ARGV[8], 'finishedAt', NOW)
if ARGV[5] ~= '' then set('errorType', ARGV[5], 'error', ARGV[6], 'errorRetryable', ARGV[7]) end
set('letters', 1)
forget('decision', 'decidedSeq', 'before', 'fence', 'owner', 'nextAttemptAt', 'rung', 'discarded')
hop(ARGV[9])
commit(0)
return 'OK'
