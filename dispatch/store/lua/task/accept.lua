-- A new record, not yet published. ARGV: 1 seed, 2 hop.
-- A client that repeats its key after a crash finds the record there already: it goes on with it.
if exists() then return get('state') end
recreate(ARGV[1])
set('state', 'SCHEDULED', 'published', 0)
hop(ARGV[2])
commit(0)
return 'SCHEDULED'
