-- The worker stopped a run on purpose (shutdown, lost connection): no lost run, the next copy need not wait.
local owner, fence, queue, hop = unpack(ARGV)
local holds = get('fence')
-- The same delivery may have been claimed again already: where Redis lacked this script, it comes after what was sent behind it.
if lease_owner() ~= owner or get('decision') or (holds and holds ~= fence) then return 'KEPT' end
redis.call('DEL', KEYS[2])
if holds then
  if get('cancelRequested') == '1' and not may_undo() then
    add_hop(hop)
    end_cancelled()
    return 'OK'
  end
  unset('fence', 'owner')
  set('state', 'QUEUED', 'queue', queue)
  add_hop(hop)
  commit(0)
end
return 'OK'
