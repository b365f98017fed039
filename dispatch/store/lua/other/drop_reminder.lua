-- The sweeper has nothing left to do for a task, unless a reminder was set since it read the record.
-- KEYS: 1 the reminders. read_at: epoch seconds.
local task_id, read_at = unpack(ARGV)
local at = redis.call('ZSCORE', KEYS[1], task_id)
if at and tonumber(at) <= tonumber(read_at) then return redis.call('ZREM', KEYS[1], task_id) end
return 0
