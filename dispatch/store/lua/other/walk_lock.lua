-- Takes, keeps or releases (0 ms) the right to walk through the DLQ. KEYS: 1 the lock.
local walker, keep_ms = unpack(ARGV)
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= walker then return 'TAKEN' end
redis.call('DEL', KEYS[1]) -- first: then it may be set with Redis full, too
if tonumber(keep_ms) > 0 then redis.call('SET', KEYS[1], walker, 'PX', keep_ms) end
return 'OK'
