-- A dead letter starts its next cycle; recorded before the copy is published.
-- deadline: of that cycle; '' without one. mended: '1' when its message is another one than the record's, 'fresh' when it
-- begins anew, too; '' otherwise. What it takes the place of is kept with the decision: a refused publish brings it back.
local cycle, seq, decision, hop, deadline, mended = unpack(ARGV)
cycle, seq = tonumber(cycle), tonumber(seq)
if not exists() then return {'MISSING'} end
-- A redrive that was cut off between record and publish: go on with the copy that was decided.
if get('before') and number('cycle') == cycle + 1 and get('decision') then return {'ROUTE', get('decision')} end
local state = get('state')
if not DEAD[state] or get('discarded') then return {'REFUSED', state} end
if number('cycle') ~= cycle or number('seq') ~= seq then return {'REFUSED', state} end
local kept = decision
if mended ~= '' then
  local undo = {message = redis.call('GET', KEYS[4]) or get('message'), concurrencyKey = get('concurrencyKey')}
  if mended == 'fresh' then
    undo.step, undo.checkpoint = get('step'), get('checkpoint')
    unset('step', 'checkpoint')
  end
  kept = string.sub(decision, 1, -2) .. ',"undo":' .. cjson.encode(undo) .. '}'
  local message = cjson.decode(decision).message
  redis.call('SET', KEYS[4], message)
  local key = cjson.decode(message).headers['x-concurrency-key']
  if key then set('concurrencyKey', key) else unset('concurrencyKey') end
end
set('before', state, 'state', 'SCHEDULED', 'cycle', cycle + 1, 'decision', kept, 'decidedSeq', seq, 'attempt', 0, 'lostRuns', 0)
if deadline ~= '' then set('deadlineAt', deadline) end
unset('finishedAt', 'startedAt', 'progress', 'cancelRequested', 'undoGranted', 'letters', 'copyAttempt')
add_hop(hop)
commit(0)
return {'OK', decision}
