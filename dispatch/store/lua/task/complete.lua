-- The handler returned.
local fence, owner, result, ttl, hop, seed = unpack(ARGV)
local there, rebuilt = present(seed)
if not there then return 'MISSING' end
if rebuilt then set('fence', fence, 'startedAt', NOW) end
local state = get('state')
-- The answer to a first try may have been lost on the way: the same fence may complete again.
if state == 'SUCCEEDED' and get('doneFence') == fence then return 'OK' end
if TERMINAL[state] or get('fence') ~= fence then return 'REFUSED' end
local progress = get('progress')
if progress and cjson.decode(progress).percent ~= 100 then set('progress', '{"percent":100,"message":""}') end
set('state', 'SUCCEEDED', 'result', result, 'finishedAt', NOW, 'doneFence', fence)
unset('fence', 'owner', 'error', 'errorType', 'errorRetryable', 'nextAttemptAt', 'queue', 'rung')
if lease_owner() == owner then redis.call('DEL', KEYS[2]) end
add_hop(hop)
commit(tonumber(ttl))
return 'OK'
