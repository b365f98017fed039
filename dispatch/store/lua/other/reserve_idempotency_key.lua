-- Reserves an Idempotency-Key, before anything else is done. KEYS: 1 the key's hash. Times in ms. From the fifth argument on: what
-- other encryption keys, or none, made of the same fingerprint.
local task_id, fingerprint, ttl, adopt_after = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder, used_for, reserved_at, done = unpack(redis.call('HMGET', KEYS[1], 'task', 'print', 'at', 'done'))
if not holder then
  redis.call('HSET', KEYS[1], 'task', task_id, 'print', fingerprint, 'at', now)
  redis.call('PEXPIRE', KEYS[1], ttl)
  return {'NEW', task_id, 0}
end
local same = used_for == fingerprint
for i = 5, #ARGV do same = same or used_for == ARGV[i] end
if not same then return {'REUSED', holder, 0} end
if done == '1' then return {'REPLAY', holder, 0} end
if holder == task_id then return {'NEW', task_id, 0} end -- once more, after a connection that broke
local age = now - (tonumber(reserved_at) or 0)
if age >= tonumber(adopt_after) then
  -- The first request was cut off: this one goes on with its task id, and for a while it alone.
  redis.call('HSET', KEYS[1], 'at', now)
  redis.call('PEXPIRE', KEYS[1], ttl)
  return {'ADOPT', holder, 0}
end
return {'BUSY', holder, tonumber(adopt_after) - age}
