-- Lists a task in an index that only some tasks are in. Such indexes are many and small, so each goes by itself when its newest
-- entry is old enough; and what is too old leaves with the next entry.
-- KEYS: 1 the index. at: epoch ms. oldest: entries before it go. ttl: ms. vital: '1' of an accepted task, which a Redis with its
-- memory full takes as well: once a script has written, nothing is refused to it.
local task_id, at, oldest, ttl, vital = unpack(ARGV)
if vital == '1' then redis.call('ZREM', KEYS[1], '') end
redis.call('ZADD', KEYS[1], at, task_id)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', oldest)
if redis.call('PTTL', KEYS[1]) < tonumber(ttl) then redis.call('PEXPIRE', KEYS[1], ttl) end
return 1
