-- A worker's sign of life. KEYS: 1 the roster, a hash. ARGV: 1 worker, 2 JSON object, or '' when it leaves, 3 ms after which others are forgotten.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], '{"seenAt":' .. now .. ',' .. string.sub(ARGV[2], 2))
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if now - (tonumber(string.match(all[i + 1], '"seenAt":(%d+)')) or 0) > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], all[i]) end
end
return now
