-- The sweeper checks tasks again at later times, unless a reminder was set, or dropped, since it read the records.
-- KEYS: 1 the reminders. ARGV: read_at, epoch seconds; then each task id and the time.
local read_at = unpack(ARGV)
redis.call('ZREM', KEYS[1], '') -- first: then the rest is admitted with Redis full, too
for n = 2, #ARGV, 2 do
  local at = redis.call('ZSCORE', KEYS[1], ARGV[n])
  if at and tonumber(at) <= tonumber(read_at) then redis.call('ZADD', KEYS[1], ARGV[n + 1], ARGV[n]) end
end
return 0
