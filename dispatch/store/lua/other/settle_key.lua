-- The task of this key was accepted. KEYS: 1 the key. ARGV: 1 task id.
if redis.call('HGET', KEYS[1], 'task') == ARGV[1] then redis.call('HSET', KEYS[1], 'done', 1) end
return 'OK'
