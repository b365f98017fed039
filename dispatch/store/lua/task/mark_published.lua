-- The broker has confirmed the message. ARGV: 1 queue, 2 hop, 3 seed.
-- Fails only on REJECTED: then the sweeper was first, and the copy in the broker will find CANCELLED at its claim.
local state = get('state')
if not state then
  if ARGV[3] == '' then return 'MISSING' end
  recreate(ARGV[3])
  state = 'SCHEDULED'
  set('state', state)
end
if state == 'REJECTED' then return 'REJECTED' end
set('published', 1)
if state == 'SCHEDULED' then set('state', 'QUEUED', 'queue', ARGV[1]) end
hop(ARGV[2])
commit(TERMINAL[state] and redis.call('PTTL', KEYS[1]) > 0 and redis.call('PTTL', KEYS[1]) or 0)
return 'OK'
