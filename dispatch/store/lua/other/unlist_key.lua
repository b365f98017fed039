-- Entries whose records are gone leave a list; one that was listed again meanwhile has another score, and stays.
-- KEYS: 1 the list. ARGV: member and the score it had, for each.
local dropped = 0
for n = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[n])
  if score and tonumber(score) == tonumber(ARGV[n + 1]) then dropped = dropped + redis.call('ZREM', KEYS[1], ARGV[n]) end
end
return dropped
