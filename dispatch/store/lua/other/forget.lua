-- The sweeper has nothing left to do for a task, unless somebody set a reminder since it looked.
-- KEYS: 1 what is due. ARGV: 1 task id, 2 the time at which it looked, epoch seconds.
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if at and tonumber(at) <= tonumber(ARGV[2]) then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
