-- An Idempotency-Key, before anything else. KEYS: 1 the key. ARGV: 1 task id, 2 fingerprint, 3 ttl ms, 4 adopt after ms.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'task', 'print', 'at', 'done')
if not kept[1] then
  redis.call('HSET', KEYS[1], 'task', ARGV[1], 'print', ARGV[2], 'at', now)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {'NEW', ARGV[1], 0}
end
if kept[2] ~= ARGV[2] then return {'REUSED', kept[1], 0} end
if kept[4] == '1' then return {'REPLAY', kept[1], 0} end
local age = now - (tonumber(kept[3]) or 0)
if age >= tonumber(ARGV[4]) then
  -- The first request was cut off: this one goes on with its task id, and for a while it alone.
  redis.call('HSET', KEYS[1], 'at', now)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {'ADOPT', kept[1], 0}
end
return {'BUSY', kept[1], tonumber(ARGV[4]) - age}
