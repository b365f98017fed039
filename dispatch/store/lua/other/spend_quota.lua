-- Counts one request of a principal: the generic cell rate algorithm, which needs one number and has no window's edge.
-- KEYS: 1 when the share will be whole again (ms). ARGV: the quota, its window, and how many requests before this one were carried out
-- and not counted yet. Answers: taken or not, and the ms until then.
local requests, window, before = unpack(ARGV)
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local each = window / requests
window = tonumber(window)
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + each * before
local taken = whole + each - now <= window + each / 1000
if taken then whole = whole + each end
if taken or before ~= '0' then
  redis.call('DEL', KEYS[1]) -- first: then it may be set with Redis full, too
  redis.call('SET', KEYS[1], string.format('%.3f', whole), 'PX', math.ceil(whole - now))
end
return {taken and 1 or 0, math.floor(whole - now)}
