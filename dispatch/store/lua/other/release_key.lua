-- Compare and delete: only the task that holds the key frees it. KEYS: 1 the key. ARGV: 1 task id.
if redis.call('HGET', KEYS[1], 'task') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
