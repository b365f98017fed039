-- One walk through the DLQ at a time. KEYS: 1 the key. ARGV: 1 walker, 2 ms to keep it; 0 gives it up.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 'TAKEN' end
if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) else redis.call('DEL', KEYS[1]) end
return 'OK'
