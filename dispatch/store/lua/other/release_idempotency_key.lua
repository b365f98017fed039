-- Compare and delete: only the task that holds the Idempotency-Key frees it. KEYS: 1 the key's hash.
local task_id = unpack(ARGV)
if redis.call('HGET', KEYS[1], 'task') == task_id then return redis.call('DEL', KEYS[1]) end
return 0
