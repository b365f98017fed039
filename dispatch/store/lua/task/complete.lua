-- The handler returned. ARGV: 1 fence, 2 owner, 3 result, 4 ttl ms, 5 hop, 6 seed.
if not exists() then
  if ARGV[6] == '' then return 'MISSING' end
  recreate(ARGV[6])
  set('fence', ARGV[1], 'startedAt', NOW)
end
local state = get('state')
-- The answer to a first try may have been lost on the way: the same fence may say it again.
if state == 'SUCCEEDED' and get('doneFence') == ARGV[1] then return 'OK' end
if TERMINAL[state] or get('fence') ~= ARGV[1] then return 'REFUSED' end
set('state', 'SUCCEEDED', 'result', ARGV[3], 'finishedAt', NOW, 'doneFence', ARGV[1])
forget('fence', 'owner', 'error', 'errorType', 'errorRetryable', 'nextAttemptAt', 'queue', 'rung')
if lease_owner() == ARGV[2] then redis.call('DEL', KEYS[2]) end
hop(ARGV[5])
commit(tonumber(ARGV[4]))
return 'OK'
