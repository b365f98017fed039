-- Adds an entry to the audit log, and drops what is beyond its length or its age. KEYS: 1 the log, a stream.
-- The age is Redis's: a client whose clock is ahead must not empty the log.
local longest, age = unpack(ARGV) -- then names and values of the entry
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', longest, '*', unpack(ARGV, 3))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%d', math.max(0, now - age)))
redis.call('PEXPIRE', KEYS[1], age)
return id
