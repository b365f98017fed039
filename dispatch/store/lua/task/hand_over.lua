-- The decided copy is confirmed: its seq is the record's now, older copies are stale, the lease is dropped.
-- final: the state of a dead letter, or ''. queued: '1' when the copy went to the work queue. wait_ms: on the rung or in the delay levels, from
-- the confirm on.
local seq, owner, final, hop, queued, queue, wait_ms, attempt = unpack(ARGV)
seq = tonumber(seq)
if not exists() then return 'MISSING' end
if owner ~= '' and lease_owner() == owner then redis.call('DEL', KEYS[2]) end
if number('decidedSeq') ~= seq or not get('decision') then return 'LATE' end
set('seq', seq + 1, 'published', 1, 'copyAttempt', attempt)
unset('decision', 'decidedSeq', 'owner', 'fence', 'before')
if final ~= '' then
  set('state', final, 'finishedAt', NOW, 'queue', queue)
  unset('nextAttemptAt', 'rung')
elseif queued == '1' then
  set('state', 'QUEUED', 'queue', queue)
  unset('nextAttemptAt', 'rung')
elseif get('state') ~= 'HELD' then
  set('nextAttemptAt', NOW + tonumber(wait_ms))
end
add_hop(hop)
commit(0)
return 'OK'
