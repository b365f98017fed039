-- An operator gave a dead letter up: it stays FAIL and expires. ARGV: 1 ttl ms, 2 hop.
if not exists() then return 'MISSING' end
if not BURIED[get('state')] then return 'REFUSED' end
if get('discarded') then return 'OK' end
set('discarded', 1)
hop(ARGV[2])
commit(tonumber(ARGV[1]))
return 'OK'
