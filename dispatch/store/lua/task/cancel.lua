-- A task is to be stopped. One that runs is asked to; so is one that waits between two steps, or is held there, whose handler may
-- have something to undo: WAKE, its wait is to be ended. Any other ends at once. by: who asked for it.
-- ttl: milliseconds for which the record is retained after its end. undoing: types whose handlers undo, each between commas.
local by, ttl, undoing, hop = unpack(ARGV)
if not exists() then return 'MISSING' end
local state = get('state')
if state == 'CANCELLED' then return 'CANCELLED' end
if TERMINAL[state] then return 'TERMINAL' end
local again = get('cancelRequested') == '1'
if not again then set('cancelRequested', 1, 'cancelBy', by, 'cancelTtl', ttl, 'cancelAt', NOW) end
if string.find(undoing, ',' .. (get('type') or '') .. ',', 1, true) then set('undo', 1) end
local runs = state == 'RUNNING' and lease_owner()
if not runs and not may_undo() then
  end_cancelled()
  return 'CANCELLED'
end
if not again then
  add_hop(hop)
  commit(0)
end
local waits = state == 'WAITING' or state == 'RETRY_WAIT' or state == 'HELD'
return waits and 'WAKE' or 'REQUESTED'
