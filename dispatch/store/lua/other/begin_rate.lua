-- A type's rate: at most `count` runs begin in any window of `unit` ms. Who may begin, which of the waiting are called, and which wait.
-- KEYS: 1 the begins in the window: deliveries by time; 2 the called, a hash: task id → '<until>:<sent>', and '#turn', the worker that
-- calls: '<worker>:<until>'; 3 the waiting: task ids by rank. Times are epoch milliseconds.
-- op: take, begun, wait, refund, sent, drop, look. who: a delivery (take, begun, refund), or a worker (look). free: a run that does not count.
-- Answers the verdict; look also the ms until the next one (-1: nothing waits), and the called to which no copy was sent yet.
local op, task, who, count, unit, rank, free, window, most, turn = unpack(ARGV)
count, unit, window = tonumber(count), tonumber(unit), tonumber(window)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - unit) -- first: then the rest is admitted with Redis full, too
-- A clock that was set back must not block the rate for as long as it was ahead.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do redis.call('ZADD', KEYS[1], now, id) end

local function call(id, sent)
  redis.call('HSET', KEYS[2], id, string.format('%.0f:%s', now + window, sent))
  redis.call('PEXPIRE', KEYS[2], 2 * window)
end

if op == 'take' then
  redis.call('ZREM', KEYS[1], who) -- of a delivery that took before and did not begin
  if free == '1' and not redis.call('ZSCORE', KEYS[3], task) then return {'FREE'} end
  -- The waiting that came before go first, called or not: a place of the window is theirs.
  redis.call('HDEL', KEYS[2], task)
  redis.call('ZADD', KEYS[3], rank, task)
  if redis.call('ZCARD', KEYS[1]) + redis.call('ZRANK', KEYS[3], task) >= count then return {'WAIT'} end
  redis.call('ZREM', KEYS[3], task)
  redis.call('ZADD', KEYS[1], now, who)
  redis.call('PEXPIRE', KEYS[1], unit)
  return {'TAKEN'}
elseif op == 'begun' then
  -- As late as it is: so the next run that may begin is a whole unit after this one, and not after its place was taken.
  if redis.call('ZSCORE', KEYS[1], who) then
    redis.call('ZADD', KEYS[1], now, who)
    redis.call('PEXPIRE', KEYS[1], unit)
  end
elseif op == 'wait' then
  redis.call('ZADD', KEYS[3], rank, task)
  if redis.call('HEXISTS', KEYS[2], task) == 1 then call(task, '0') end
elseif op == 'refund' then
  redis.call('ZREM', KEYS[1], who)
elseif op == 'sent' then
  for n = 11, #ARGV do
    if redis.call('HEXISTS', KEYS[2], ARGV[n]) == 1 then call(ARGV[n], '1') end
  end
elseif op == 'drop' then
  redis.call('HDEL', KEYS[2], task)
  redis.call('ZREM', KEYS[3], task)
end
if op ~= 'look' then return {'OK'} end

-- One worker at a time calls: what it is about to send no other sends, too.
local fields, calls, called, unsent = redis.call('HGETALL', KEYS[2]), 0, {}, {}
for n = 1, #fields, 2 do
  local id = fields[n]
  if id == '#turn' then
    local other, till = string.match(fields[n + 1], '^(.*):(%d+)$')
    local left = tonumber(till) - now
    if other ~= who and left > 0 and left <= window then return {'OK', string.format('%.0f', left)} end
  end
end
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('DEL', KEYS[2])
  return {'OK', '-1'}
end
for n = 1, #fields, 2 do
  local id = fields[n]
  local till, sent = string.match(fields[n + 1], '^(%d+):([01])$')
  if id ~= '#turn' then
    local left = tonumber(till) - now
    if not redis.call('ZSCORE', KEYS[3], id) then
      redis.call('HDEL', KEYS[2], id)
    elseif left <= 0 or left > window then
      redis.call('HDEL', KEYS[2], id)
      -- Its copy is under way and comes by itself: until then it holds up no other.
      if sent == '1' then redis.call('ZREM', KEYS[3], id) end
    else
      called[id] = true
      calls = calls + 1
      if sent == '0' then unsent[#unsent + 1] = id end
    end
  end
end
local begun = redis.call('ZCARD', KEYS[1])
local room = math.min(count - begun - calls, tonumber(most) - #unsent)
if room > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, calls + room - 1)) do
    if room > 0 and not called[id] then
      call(id, '0')
      unsent[#unsent + 1] = id
      calls, room = calls + 1, room - 1
    end
  end
end
local next_look = tonumber(turn)
if begun + calls < count and redis.call('ZCARD', KEYS[3]) > calls then
  next_look = 0
elseif begun > 0 then
  next_look = math.min(next_look, redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] + unit - now)
end
redis.call('HSET', KEYS[2], '#turn', string.format('%s:%.0f', who, now + next_look + turn))
redis.call('PEXPIRE', KEYS[2], 2 * window)
return {'OK', string.format('%.0f', next_look), unpack(unsent)}
