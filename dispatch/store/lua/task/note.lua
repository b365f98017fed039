-- A hop of a task from outside its way: nothing else of the record changes, also after its end.
local hop = unpack(ARGV)
if not exists() then return 'MISSING' end
add_hop(hop)
redis.call('PUBLISH', KEYS[1], get('revision'))
return 'OK'
