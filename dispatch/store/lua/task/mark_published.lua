-- The broker has confirmed the message. Fails only on REJECTED: then the sweeper was first, and the copy in the broker
-- finds CANCELLED at its claim.
-- to: the state of a task that is still to run, QUEUED or DELAYED. rest: seconds until the sweeper has something to check.
local queue, to, hop, _, seed = unpack(ARGV)
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
if rebuilt then set('state', 'SCHEDULED') end
local state = get('state')
if state == 'REJECTED' then return 'REJECTED' end
if get('published') == '1' then
  complete_published(hop)
  if state ~= 'SCHEDULED' then return 'OK' end
else
  add_hop(hop)
end
set('published', 1)
if state == 'SCHEDULED' then set('state', to, 'queue', queue) end
commit(TERMINAL[state] and redis.call('PTTL', KEYS[1]) > 0 and redis.call('PTTL', KEYS[1]) or 0)
return 'OK'
