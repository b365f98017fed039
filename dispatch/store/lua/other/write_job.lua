-- What has come of a job that runs, or its end. ttl: milliseconds for which it is kept then; 0 while it runs.
-- ARGV: ttl, then fields and their values. First a deletion, of nothing: then the rest is admitted with Redis full, too.
redis.call('HDEL', KEYS[1], '')
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if tonumber(ARGV[1]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
