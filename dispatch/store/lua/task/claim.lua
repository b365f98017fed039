-- May this copy run? ARGV: 1 cycle, 2 seq, 3 attempt, 4 owner, 5 fence, 6 lease ms, 7 lost runs allowed, 8 worker, 9 hop, 10 seed.
-- The order of the questions is the table in the design; every answer but RUN and LOST leaves the record as it is.
local cycle, seq, attempt, owner = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if not exists() then
  if ARGV[10] == '' then return {'MISSING'} end
  recreate(ARGV[10])
end
local state, was = get('state'), number('cycle')
if (state == 'CANCELLED' or state == 'REJECTED') and was >= cycle then return {'CANCELLED'} end
if was > cycle or (was == cycle and TERMINAL[state]) then return {'DONE'} end
local holder = lease_owner()
local lost = 0
if was == cycle then
  if number('seq') > seq then return {'STALE'} end
  if get('decision') and number('decidedSeq') == seq then return {'ROUTE', get('decision')} end
end
if holder and holder ~= owner then return {'BUSY'} end
-- The same seq, a run that began and a lease that is gone: that run was lost with its worker.
-- The same owner asks again only when its claim's answer was lost, so nothing has run.
if was == cycle and number('seq') == seq and get('fence') and not holder and get('owner') ~= owner then
  lost = redis.call('HINCRBY', KEYS[1], 'lostRuns', 1)
elseif number('seq') ~= seq or was ~= cycle then
  set('lostRuns', 0)
end
set('state', 'RUNNING', 'cycle', cycle, 'seq', seq, 'attempt', attempt, 'published', 1,
    'owner', owner, 'fence', ARGV[5], 'worker', ARGV[8])
redis.call('HSETNX', KEYS[1], 'startedAt', NOW)
forget('decision', 'decidedSeq', 'before', 'nextAttemptAt', 'rung', 'queue', 'finishedAt', 'deadReason', 'progress')
redis.call('SET', KEYS[2], owner, 'PX', ARGV[6])
hop(ARGV[9])
commit(0)
return {lost >= tonumber(ARGV[7]) and 'LOST' or 'RUN'}
