-- A schedule's new revision. KEYS: 1 the hash. was: the revision that the caller has read, 0 for none. deleted: 1 leaves a tombstone, by
-- which late wake-ups know that it was deleted and not lost; it expires after ttl ms. fresh: 1 begins to count anew.
local was, revision, definition, principal, deleted, ttl, next_at, fresh = unpack(ARGV)
if (redis.call('HGET', KEYS[1], 'revision') or '0') ~= was then return 0 end
if fresh == '1' then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'revision', revision, 'definition', definition, 'principal', principal, 'deleted', deleted,
  'nextAt', next_at, 'tick', '', 'leg', 0, 'error', '')
if tonumber(ttl) > 0 then redis.call('PEXPIRE', KEYS[1], ttl) else redis.call('PERSIST', KEYS[1]) end
return 1
