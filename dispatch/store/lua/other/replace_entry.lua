-- An entry of a list becomes another one, at the list's head, unless it was taken out meanwhile.
-- KEYS: 1 the list.
local entry, becomes = unpack(ARGV)
if redis.call('LREM', KEYS[1], -1, entry) == 0 then return 0 end
redis.call('LPUSH', KEYS[1], becomes)
return 1
