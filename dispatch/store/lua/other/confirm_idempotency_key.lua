-- The task of this Idempotency-Key was accepted: its repeats are replays. KEYS: 1 the key's hash.
local task_id = unpack(ARGV)
if redis.call('HGET', KEYS[1], 'task') == task_id then
  redis.call('HDEL', KEYS[1], 'done') -- first: then it may be set with Redis full, too
  redis.call('HSET', KEYS[1], 'done', 1)
end
return 'OK'
