-- The decided copy is confirmed: its seq is the record's now, older copies are stale, the lease is dropped.
-- ARGV: 1 seq that was decided, 2 owner or '', 3 final state or '', 4 hop, 5 '1' when the copy went to the work queue, 6 queue,
--       7 wait ms on the rung, which begins with the confirm, 8 the attempt that the copy authorises.
if not exists() then return 'MISSING' end
if ARGV[2] ~= '' and lease_owner() == ARGV[2] then redis.call('DEL', KEYS[2]) end
if number('decidedSeq') ~= tonumber(ARGV[1]) or not get('decision') then return 'LATE' end
set('seq', tonumber(ARGV[1]) + 1, 'published', 1, 'copyAttempt', ARGV[8])
forget('decision', 'decidedSeq', 'owner', 'fence', 'before')
if ARGV[3] ~= '' then
  set('state', ARGV[3], 'finishedAt', NOW, 'queue', ARGV[6])
  forget('nextAttemptAt', 'rung')
elseif ARGV[5] == '1' then
  set('state', 'QUEUED', 'queue', ARGV[6])
  forget('nextAttemptAt', 'rung')
else
  set('nextAttemptAt', NOW + tonumber(ARGV[7]))
end
hop(ARGV[4])
commit(0)
return 'OK'
