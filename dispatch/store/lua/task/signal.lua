-- A signal for a task: recorded, and where the task waits for it the wait is over, with a copy of the next seq as in send_now.lua.
-- One step, so that a crash leaves no signal that was recorded and not acted on.
-- key: '', or a digest of an Idempotency-Key. seq: that copy's; 0 of a task that was not seen to wait for it, -1 only records.
local name, signal, most, key, fingerprint, cycle, seq, decision, queue, kept_hop, sent_hop = unpack(ARGV)
cycle, seq = tonumber(cycle), tonumber(seq)
if not exists() then return {'MISSING'} end
local state = get('state')
local decided = get('decision') and number('decidedSeq')
if key ~= '' then
  local known = get('signal-key:' .. key)
  if known and known ~= fingerprint then return {'REUSED'} end
  -- Cut off before its copy was published, perhaps. The task may have ended since, by this very signal.
  if known then return {'REPLAYED', state == 'QUEUED' and get('decision') or nil} end
end
if TERMINAL[state] then return {'TERMINAL'} end
local count = number('signals') + 1
if count > tonumber(most) then return {'FULL'} end
local waits = seq >= 0 and state == 'WAITING' and waited_for(get('waitingFor'))[name]
local last = decided and decided + 1 or number('seq')
if waits and (number('cycle') ~= cycle or last + 1 ~= seq) then return {'AGAIN'} end
local names = get('signalNames')
set('signals', count, 'signalNames', names and names .. ',' .. name or name,
    'signal:' .. count, '{"at":' .. NOW .. ',' .. string.sub(signal, 2))
if key ~= '' then set('signal-key:' .. key, fingerprint) end
if not waits then
  add_hop(kept_hop)
  commit(0)
  return {'KEPT'}
end
take_signals(get('waitingFor'))
redis.call('DEL', KEYS[2])
outlive_waiting_copy()
set('seq', last, 'decision', decision, 'decidedSeq', last, 'state', 'QUEUED', 'queue', queue)
unset('rung', 'nextAttemptAt', 'fence', 'owner')
add_hop(sent_hop)
commit(0)
return {'SENT', decision}
