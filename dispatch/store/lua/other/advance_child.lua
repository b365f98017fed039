-- What a task has submitted under a key of its own becomes something else, unless another run of the step was faster.
-- KEYS: 1 the hash of what the task has submitted. was: what the caller has read. Answers: what it is now.
local field, was, becomes, ttl = unpack(ARGV)
local now = redis.call('HGET', KEYS[1], field)
if now and now ~= was then return now end
redis.call('HSET', KEYS[1], field, becomes)
redis.call('PEXPIRE', KEYS[1], ttl)
return becomes
