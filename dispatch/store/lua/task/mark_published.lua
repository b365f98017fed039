-- The broker has confirmed the message. Fails only on REJECTED: then the sweeper was first, and the copy in the broker
-- finds CANCELLED at its claim.
local queue, hop, seed = unpack(ARGV)
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
if rebuilt then set('state', 'SCHEDULED') end
local state = get('state')
if state == 'REJECTED' then return 'REJECTED' end
set('published', 1)
if state == 'SCHEDULED' then set('state', 'QUEUED', 'queue', queue) end
add_hop(hop)
commit(TERMINAL[state] and redis.call('PTTL', KEYS[1]) > 0 and redis.call('PTTL', KEYS[1]) or 0)
return 'OK'
