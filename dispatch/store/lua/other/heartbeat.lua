-- Records a worker's heartbeat, or its leaving ('' for the info). KEYS: 1 the registry, a hash.
-- Workers that were silent for forget_after ms are removed.
local worker, info, forget_after = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HDEL', KEYS[1], worker) -- first: then it may be set with Redis full, too
if info ~= '' then
  redis.call('HSET', KEYS[1], worker, '{"seenAt":' .. now .. ',' .. string.sub(info, 2))
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local seen_at = tonumber(string.match(all[i + 1], '"seenAt":(%d+)')) or 0
  if now - seen_at > tonumber(forget_after) then redis.call('HDEL', KEYS[1], all[i]) end
end
return now
