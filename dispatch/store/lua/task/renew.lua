-- The worker still holds the delivery. Answers CANCEL, and for how many milliseconds, when the task is to be stopped.
local owner, fence, lease_ms, seed = unpack(ARGV)
local holder = lease_owner()
if holder == owner then
  redis.call('PEXPIRE', KEYS[2], lease_ms)
  local state, cancel = unpack(redis.call('HMGET', KEYS[1], 'state', 'cancelRequested'))
  if state then return cancel == '1' and {'CANCEL', NOW - number('cancelAt')} or 'OK' end
elseif holder then
  return 'LOST'
end
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
if rebuilt then
  set('state', 'RUNNING', 'owner', owner, 'fence', fence, 'published', 1)
  redis.call('HSETNX', KEYS[1], 'startedAt', NOW)
  commit(0)
elseif get('owner') ~= owner or get('state') ~= 'RUNNING' then
  return unclaimed() and not (TERMINAL[get('state')] or get('decision')) and 'UNCLAIMED' or 'LOST'
end
-- The lease lapsed (Redis was away) and no other delivery took it: it is this one's still.
redis.call('SET', KEYS[2], owner, 'PX', lease_ms)
return 'OK'
