-- A concurrency key: which tasks hold it, which of the waiting are called, and which wait. Each call first forgets what has lapsed, and
-- ends by calling the next of the waiting for each free place.
-- KEYS: 1 the holders, a hash: task id → '<lapses>:<fence>', and '#limit'; 2 the called, a hash: task id → '<until>:<sent>'; 3 the waiting:
-- task ids by rank. Times are epoch milliseconds. op: take, wait, release, return, renew, keep, sent, drop, look.
-- Answers the verdict and the called to which no copy was sent yet.
redis.call('HDEL', KEYS[1], '') -- first: then the rest is admitted with Redis full, too
local op, task, limit, fence, rank, lease, window = unpack(ARGV)
limit, fence, rank, lease, window = tonumber(limit), tonumber(fence), tonumber(rank), tonumber(lease), tonumber(window)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local holders, running = {}, 0
local all = redis.call('HGETALL', KEYS[1])
for n = 1, #all, 2 do
  if all[n] == '#limit' then
    if limit == 0 then limit = tonumber(all[n + 1]) end
  else
    local lapses, held = string.match(all[n + 1], '^(%d+):(%d+)$')
    if tonumber(lapses) <= now then
      redis.call('HDEL', KEYS[1], all[n])
    else
      holders[all[n]] = {lapses = tonumber(lapses), fence = tonumber(held)}
      running = running + 1
    end
  end
end
local called, calls = {}, 0
all = redis.call('HGETALL', KEYS[2])
for n = 1, #all, 2 do
  local id = all[n]
  local till, sent = string.match(all[n + 1], '^(%d+):(%d)$')
  local its_rank = redis.call('ZSCORE', KEYS[3], id)
  if not its_rank or holders[id] then
    redis.call('HDEL', KEYS[2], id)
  elseif tonumber(till) <= now then
    redis.call('HDEL', KEYS[2], id)
    -- Its copy is under way and comes by itself: until then it holds up no other.
    if sent == '1' then redis.call('ZREM', KEYS[3], id) end
  else
    called[id] = {sent = sent, rank = tonumber(its_rank)}
    calls = calls + 1
  end
end

local function hold(lapses, its_fence)
  if not holders[task] then running = running + 1 end
  holders[task] = {lapses = lapses, fence = its_fence}
  redis.call('HSET', KEYS[1], task, string.format('%.0f:%.0f', lapses, its_fence))
end

-- A copy that is later than what a wait has kept the key for, or the same, has its worker's lease: the wait is over, perhaps early.
local function lapses_of(held, till) return fence >= held.fence and till or math.max(held.lapses, till) end

local function call(id, sent)
  if not called[id] then calls = calls + 1 end
  called[id] = {sent = sent}
  redis.call('HSET', KEYS[2], id, string.format('%.0f:%s', now + window, sent))
end

local function uncall(id)
  if called[id] then calls = calls - 1 end
  called[id] = nil
  redis.call('HDEL', KEYS[2], id)
end

local verdict = 'OK'
if limit > 0 then redis.call('HSET', KEYS[1], '#limit', limit) end -- also where Redis lost its data, and a holder renews
local mine = holders[task]
if op == 'take' and mine then
  verdict = 'SAME'
  hold(lapses_of(mine, now + lease), math.max(mine.fence, fence))
elseif op == 'take' then
  -- The waiting that came before go first: those that are called, and as many more as there are places.
  local ahead = 0
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, limit - 1)) do
    local its_rank = tonumber(redis.call('ZSCORE', KEYS[3], id))
    if id ~= task and (its_rank < rank or (its_rank == rank and id < task)) then ahead = ahead + 1 end
  end
  uncall(task)
  if running + ahead < limit then
    verdict = 'TAKEN'
    redis.call('ZREM', KEYS[3], task)
    hold(now + lease, fence)
  else
    verdict = 'WAIT'
    redis.call('ZADD', KEYS[3], rank, task)
  end
elseif op == 'wait' then
  if mine then
    verdict = 'SAME'
  else
    redis.call('ZADD', KEYS[3], rank, task)
    if called[task] then call(task, '0') end
  end
elseif op == 'release' and mine and mine.fence <= fence then
  holders[task], running = nil, running - 1
  redis.call('HDEL', KEYS[1], task)
elseif op == 'return' then
  -- Taken by a copy that is no use, of a task whose copy is under way: that one comes before all that were accepted later.
  if mine and mine.fence <= fence then
    holders[task], running = nil, running - 1
    redis.call('HDEL', KEYS[1], task)
    redis.call('ZADD', KEYS[3], rank, task)
    call(task, '1')
  end
elseif op == 'renew' or op == 'keep' then
  if mine or running < limit then
    hold(op == 'renew' and mine and lapses_of(mine, now + lease) or now + lease, math.max(mine and mine.fence or 0, fence))
  else
    verdict = 'LOST'
  end
elseif op == 'sent' and called[task] then
  call(task, '1')
elseif op == 'drop' then
  uncall(task)
  redis.call('ZREM', KEYS[3], task)
end

for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, math.max(0, limit + calls - 1))) do
  if running + calls >= limit then break end
  if not called[id] then call(id, '0') end
end
local answer = {verdict}
for id, entry in pairs(called) do
  if entry.sent == '0' then answer[#answer + 1] = id end
end
if running == 0 and redis.call('ZCARD', KEYS[3]) == 0 then redis.call('DEL', KEYS[1], KEYS[2]) end
return answer
