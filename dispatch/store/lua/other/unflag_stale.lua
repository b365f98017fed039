-- A walk through the DLQ is over: the dead letters that it was to check are no longer flagged.
-- KEYS: 1 the flags. ARGV: task id and its count as read before the walk, for each.
-- A count that has risen since: something happened to the dead letter that the walk may have missed.
for n = 1, #ARGV, 2 do
  local task_id, count = ARGV[n], ARGV[n + 1]
  local current = redis.call('ZSCORE', KEYS[1], task_id)
  if current and tonumber(current) == tonumber(count) then redis.call('ZREM', KEYS[1], task_id) end
end
return 0
