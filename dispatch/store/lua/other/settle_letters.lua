-- A walk through the DLQ is over. KEYS: 1 the marks. ARGV: task id and marks, as read before the walk, again and again.
-- Marked again since: something happened to the letter that the walk may not have seen.
for i = 1, #ARGV, 2 do
  local marks = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if marks and tonumber(marks) == tonumber(ARGV[i + 1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 0
