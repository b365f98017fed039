-- The handler returned.
local fence, owner, result, ttl, hop, seed = unpack(ARGV)
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
if rebuilt then set('fence', fence, 'startedAt', NOW) end
local state = get('state')
-- The answer to a first try may have been lost on the way: the same fence may complete again.
if state == 'SUCCEEDED' and get('doneFence') == fence then return 'OK' end
if TERMINAL[state] then return 'REFUSED' end
if get('fence') ~= fence then return unclaimed() and 'UNCLAIMED' or 'REFUSED' end
succeed(fence, owner, result, ttl, hop)
return 'OK'
