-- The worker stopped a run on purpose (shutdown, lost connection): no lost run, the next copy need not wait.
-- ARGV: 1 owner, 2 fence, 3 queue.
if lease_owner() ~= ARGV[1] or get('decision') then return 'KEPT' end
redis.call('DEL', KEYS[2])
if get('fence') == ARGV[2] then
  forget('fence', 'owner')
  set('state', 'QUEUED', 'queue', ARGV[3])
  commit(0)
end
return 'OK'
