-- The worker still holds the delivery. ARGV: 1 owner, 2 fence, 3 lease ms, 4 seed.
local holder = lease_owner()
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  if exists() then return 'OK' end
elseif holder then
  return 'LOST'
end
if not exists() then
  if ARGV[4] == '' then return 'MISSING' end
  recreate(ARGV[4])
  set('state', 'RUNNING', 'owner', ARGV[1], 'fence', ARGV[2], 'published', 1)
  redis.call('HSETNX', KEYS[1], 'startedAt', NOW)
  commit(0)
elseif get('owner') ~= ARGV[1] or get('state') ~= 'RUNNING' then
  return 'LOST'
end
-- The lease lapsed (Redis was away) and nobody took it: it is ours still.
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return 'OK'
