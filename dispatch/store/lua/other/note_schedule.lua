-- What has become of a schedule's due times, up to the last of them. KEYS: 1 the hash. was: the last due time that was settled when this was
-- decided. Where another wake-up has settled some since then nothing changes: each due time is counted once.
local revision, was, last, next_at, tick, fired_at, fired_task, fired, skipped, missed, problem = unpack(ARGV)
local now, settled = unpack(redis.call('HMGET', KEYS[1], 'revision', 'settledAt'))
if now ~= revision or (tonumber(settled or '0') or 0) ~= tonumber(was) then return 0 end
redis.call('HSET', KEYS[1], 'settledAt', last, 'nextAt', next_at, 'tick', tick, 'leg', 0, 'error', problem)
if fired_task ~= '' then redis.call('HSET', KEYS[1], 'firedAt', fired_at, 'firedTask', fired_task) end
redis.call('HINCRBY', KEYS[1], 'fired', fired)
redis.call('HINCRBY', KEYS[1], 'skipped', skipped)
redis.call('HINCRBY', KEYS[1], 'missed', missed)
return 1
