-- An operator discarded a dead letter: the task stays FAIL and its record expires.
local ttl, hop = unpack(ARGV)
if not exists() then return 'MISSING' end
if not DEAD[get('state')] then return 'REFUSED' end
if get('discarded') then return 'OK' end
set('discarded', 1)
unset('queue')
add_hop(hop)
commit(tonumber(ttl))
return 'OK'
