-- A new record, not yet published. A client that repeats its Idempotency-Key after a crash finds the record: it goes on with it.
local seed, hop = unpack(ARGV)
if exists() then return get('state') end
recreate(seed)
set('state', 'SCHEDULED', 'published', 0)
add_hop(hop)
commit(0)
return 'SCHEDULED'
