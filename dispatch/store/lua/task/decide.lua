-- A failed attempt and what happens next, recorded before the next copy is published.
-- ARGV: 1 fence, 2 seq, 3 decision, 4 state or '' (dead: only the confirm makes it final), 5 rung, 6 wait ms, 7 queue,
--       8 error type, 9 error, 10 retryable, 11 dead reason, 12 hop, 13 second hop, 14 seed.
local seq = tonumber(ARGV[2])
if not exists() then
  if ARGV[14] == '' then return {'MISSING'} end
  recreate(ARGV[14])
  set('fence', ARGV[1], 'startedAt', NOW)
end
-- Said already, the answer was lost or another copy was first: publish what was decided then.
if get('decision') and number('decidedSeq') == seq then return {'ROUTE', get('decision')} end
if get('fence') ~= ARGV[1] or number('seq') ~= seq then return {'REFUSED'} end
set('decision', ARGV[3], 'decidedSeq', seq, 'errorType', ARGV[8], 'error', ARGV[9], 'errorRetryable', ARGV[10], 'lostRuns', 0)
forget('fence')
if ARGV[4] ~= '' then
  set('state', ARGV[4], 'rung', ARGV[5], 'queue', ARGV[7], 'nextAttemptAt', NOW + tonumber(ARGV[6]))
end
if ARGV[11] ~= '' then set('deadReason', ARGV[11]) end
hop(ARGV[12])
hop(ARGV[13])
commit(0)
return {'OK', ARGV[3]}
