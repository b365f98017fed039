-- A new record, not yet published. A client that repeats its Idempotency-Key after a crash finds the record: it goes on with it.
-- KEYS, besides those of every script: 5 to 9, where they are on this node, the sweeper's reminders, the principal's index, that of all, the
-- waiting tasks, and what the principal's tasks hold (`other/use.lua`); 10, where it is there, the Idempotency-Key, which the command before
-- this one has reserved, for this task or not. Answers: the state, then, where this script counts the task, the sums.
-- ARGV: the hop, which begins {"kind":"accepted", the message, when the reminder is due, the score of the other entries, then the record's
-- fields and their values. Without the helpers of the other scripts: of all scripts it runs most often, and it finds nothing that has to
-- be changed.
local hop, message, reminder, score = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local task_id = string.match(KEYS[1], '{([^{]*)}$')
if KEYS[10] and redis.call('HGET', KEYS[10], 'task') ~= task_id then return {'KEY_TAKEN'} end
if KEYS[5] then redis.call('ZADD', KEYS[5], reminder, task_id) end -- put off, where another request with the key has recorded it
local state = redis.call('HGET', KEYS[1], 'state')
if state then return {state} end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('DEL', KEYS[3]) end -- those of a record that is gone
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[4], message, 'PX', MESSAGE_TTL)
redis.call('HSET', KEYS[1], 'state', 'SCHEDULED', 'published', 0, 'hops', 1, 'hop1', now .. string.sub(hop, 19), 'revision', 1,
           'updatedAt', now, unpack(ARGV, 5))
redis.call('PUBLISH', KEYS[1], 1)
if not KEYS[5] then return {'SCHEDULED'} end
for at = 6, 8 do redis.call('ZADD', KEYS[at], score, task_id) end
local open, dead, bytes, was = unpack(redis.call('HMGET', KEYS[9], '#open', '#dead', '#bytes', task_id))
open, dead, bytes = tonumber(open or 0), tonumber(dead or 0), tonumber(bytes or 0)
if not was then
  open, bytes = open + 1, bytes + #message
  redis.call('HSET', KEYS[9], '#open', open, '#bytes', bytes, task_id, 'open:' .. #message)
end
return {'SCHEDULED', open, dead, bytes}
