-- A new record, not yet published. A client that repeats its Idempotency-Key after a crash finds the record: it goes on with it.
-- KEYS: 5, where it is there: the Idempotency-Key, which the command before this one has reserved, for this task or not.
-- ARGV: the hop, which begins {"kind":"accepted", the message, then the record's fields and their values. Without the helpers of the other scripts: of all scripts it
-- runs most often, and it finds nothing that has to be changed.
local hop, message = ARGV[1], ARGV[2]
if KEYS[5] then
  local holder = redis.call('HGET', KEYS[5], 'task')
  if not holder or string.sub(KEYS[1], -#holder - 2) ~= '{' .. holder .. '}' then return 'KEY_TAKEN' end
end
local state = redis.call('HGET', KEYS[1], 'state')
if state then return state end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('DEL', KEYS[3]) end -- those of a record that is gone
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[4], message, 'PX', MESSAGE_TTL)
redis.call('HSET', KEYS[1], 'state', 'SCHEDULED', 'published', 0, 'hops', 1, 'hop1', now .. string.sub(hop, 19), 'revision', 1,
           'updatedAt', now, unpack(ARGV, 3))
redis.call('PUBLISH', KEYS[1], 1)
return 'SCHEDULED'
