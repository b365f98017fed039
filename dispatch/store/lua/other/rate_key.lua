-- One request of a principal's share: the generic cell rate algorithm, which needs one number and has no window's edge.
-- KEYS: 1 the key: when the share will be whole again, ms. ARGV: 1 requests, 2 window ms. Answers: taken or not, that time less now.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local each, window = ARGV[2] / ARGV[1], tonumber(ARGV[2])
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + each
if whole - now > window + each / 1000 then return {0, math.floor(whole - each - now)} end
redis.call('SET', KEYS[1], string.format('%.3f', whole), 'PX', math.ceil(whole - now))
return {1, math.floor(whole - now)}
