-- Removes a field of a hash that has still this value. KEYS: 1 the hash.
local field, value = unpack(ARGV)
if redis.call('HGET', KEYS[1], field) == value then return redis.call('HDEL', KEYS[1], field) end
return 0
