-- Removes entries without a record from an index; one that was listed again meanwhile has another score, and stays.
-- KEYS: 1 the index. ARGV: entry and the score it was read with, for each.
local dropped = 0
for n = 1, #ARGV, 2 do
  local entry, score = ARGV[n], ARGV[n + 1]
  local current = redis.call('ZSCORE', KEYS[1], entry)
  if current and tonumber(current) == tonumber(score) then dropped = dropped + redis.call('ZREM', KEYS[1], entry) end
end
return dropped
