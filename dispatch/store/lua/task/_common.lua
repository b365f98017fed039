-- Precedes every script of this folder but `accept`, after the constants that Python passes in: MAX_HOPS, MESSAGE_TTL, TERMINAL,
-- DEAD, MAX_AHEAD.
-- KEYS: 1 the record, 2 the lease, 3 the hops, 4 the message; all of one task, so of one cluster slot.
-- One clock for all: Redis's own, in epoch milliseconds. Workers' clocks may jump; leases and waits must not.
local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

local function get(field) return redis.call('HGET', KEYS[1], field) or nil end
local function number(field) return tonumber(get(field) or '0') or 0 end
local function set(...) redis.call('HSET', KEYS[1], ...) end
local function unset(...) redis.call('HDEL', KEYS[1], ...) end
local function exists() return redis.call('EXISTS', KEYS[1]) == 1 end
local function lease_owner() return redis.call('GET', KEYS[2]) or nil end

-- No run has the task, as far as Redis knows. It may have lost a claim with its last seconds: the run whose claim that was asks again.
local function unclaimed() return not get('fence') and not lease_owner() end

-- The first two hops of a task that waits, accepted and published, are fields of its record: a list of their own would take 400
-- bytes more. The next hop takes them along. A field: the time, and what follows the kind in the hop's JSON.
local FIRST_HOPS = {hop1 = '{"seq":1,"at":%s,"kind":"accepted"%s', hop2 = '{"seq":2,"at":%s,"kind":"published"%s'}

local function list_first_hops()
  for _, field in ipairs({'hop1', 'hop2'}) do
    local hop = get(field)
    if hop then
      redis.call('RPUSH', KEYS[3], string.format(FIRST_HOPS[field], string.match(hop, '^(%d+)(.*)$')))
      unset(field)
    end
  end
end

-- A hop comes as a JSON object without seq and time, which only the server knows.
local function add_hop(hop)
  if hop == '' then return end
  local n = redis.call('HINCRBY', KEYS[1], 'hops', 1)
  if n <= 3 then list_first_hops() end
  local length = redis.call('RPUSH', KEYS[3], '{"seq":' .. n .. ',"at":' .. NOW .. ',' .. string.sub(hop, 2))
  if length > MAX_HOPS then redis.call('LTRIM', KEYS[3], -MAX_HOPS, -1) end
end

-- A copy that arrived was published: that is noted before what follows from it, when the gateway records its confirm later.
local function note_published(hop)
  if get('published') == '0' then add_hop(hop) end
end

-- The gateway recorded its confirm later: that completes the hop, which keeps its place. Never the last one: the list would be
-- gone for a moment, and its time to live for good.
local function complete_published(hop)
  if hop == '' then return end
  list_first_hops()
  local first = redis.call('LRANGE', KEYS[3], 0, 9)
  for at = 1, #first - 1 do
    local head = string.match(first[at], '^{"seq":%d+,"at":%d+,')
    if head and cjson.decode(first[at]).kind == 'published' then
      first[at] = head .. string.sub(hop, 2)
      redis.call('LTRIM', KEYS[3], at, -1)
      for n = at, 1, -1 do redis.call('LPUSH', KEYS[3], first[n]) end
      return
    end
  end
end

-- A run whose lease is gone and whose outcome was never recorded.
local function note_lost()
  add_hop(cjson.encode({kind = 'lost', worker = get('worker'), attempt = number('attempt')}))
end

-- The message of a record that a process of the version before wrote is a field of the record.
local function has_message() return redis.call('EXISTS', KEYS[4]) == 1 or redis.call('HEXISTS', KEYS[1], 'message') == 1 end

-- A seed is made from the task's message: a JSON object of the record's fields, a line feed, the message.
local function split(seed)
  local at = string.find(seed, '\n', 1, true)
  return string.sub(seed, 1, at - 1), string.sub(seed, at + 1)
end

local function recreate(seed)
  local fields, message = split(seed)
  local words = {}
  for field, value in pairs(cjson.decode(fields)) do
    words[#words + 1] = field
    words[#words + 1] = value
  end
  set(unpack(words))
  redis.call('HSETNX', KEYS[1], 'createdAt', NOW)
  redis.call('SET', KEYS[4], message)
end

-- A record that has ended for good has no message any more; what leads out of that end again brings it along.
local function with_message(seed)
  if has_message() then return true end
  if seed == '' then return false end
  local _, message = split(seed)
  redis.call('SET', KEYS[4], message)
  return true
end

-- A copy of a later cycle than the record's: Redis has lost a redrive, which may have had another payload and begun anew. The copy's
-- message is the task's now: the one before would be sent again in its place.
local function with_later_message(seed)
  if seed == '' then return false end
  local fields, message = split(seed)
  fields = cjson.decode(fields)
  redis.call('SET', KEYS[4], message)
  unset('message')
  for _, name in ipairs({'concurrencyKey', 'deadlineAt', 'step', 'checkpoint'}) do
    if fields[name] then set(name, fields[name]) else unset(name) end
  end
  return true
end

-- Whether there is a record to work on, and whether it was rebuilt just now. Redis may have lost it; without a seed
-- the caller answers MISSING, and comes again with one.
local function present(seed)
  if exists() then return true, false end
  if seed == '' then return false, false end
  recreate(seed)
  return true, true
end

-- Nothing sends a task again whose record expires: its message goes at once. A dead letter keeps it for its redrive. That
-- of a living task has a time to live, far beyond any wait: a worker of the version before leaves it behind.
local function keep_message(ended)
  if ended then
    redis.call('DEL', KEYS[4])
    unset('message')
  elseif DEAD[get('state')] then
    redis.call('PERSIST', KEYS[4])
  else
    redis.call('PEXPIRE', KEYS[4], MESSAGE_TTL)
  end
end

-- Whether a message claims more than its record allows. A Redis that lost its last second is a few steps behind the messages;
-- an outcome is behind none: only a dead letter has a next cycle. Nothing of ours wrote such a message.
local function foreign(state, record_cycle, cycle, seq)
  if record_cycle > cycle then return false end
  if record_cycle < cycle and TERMINAL[state] and not DEAD[state] then return true end
  return cycle - record_cycle > MAX_AHEAD or seq - number('seq') > MAX_AHEAD
end

-- A copy of a later seq runs before one that waits until then. That one must still find the record when it comes: a record
-- that was gone would be rebuilt from it, and the task run again. copyUntil: when the last such copy comes.
local function outlive(at)
  if at > math.max(NOW, number('copyUntil')) then set('copyUntil', at) end
end

local function outlive_waiting_copy()
  if get('state') == 'DELAYED' then outlive(number('wakesAt')) end
  outlive(number('nextAttemptAt'))
end

-- Ends every transition: raises the revision, sets the time to live (0: as long as the task lives; it begins when no copy can
-- come any more), publishes the change.
local function commit(ttl)
  local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
  set('updatedAt', NOW)
  if ttl > 0 then ttl = ttl + math.max(0, number('copyUntil') - NOW) end
  keep_message(ttl > 0)
  for _, key in ipairs({KEYS[1], KEYS[3]}) do
    if ttl > 0 then redis.call('PEXPIRE', key, ttl) else redis.call('PERSIST', key) end
  end
  redis.call('PUBLISH', KEYS[1], revision)
  return revision
end

-- A run's end.
local function succeed(fence, owner, result, ttl, hop)
  local progress = get('progress')
  if progress and cjson.decode(progress).percent ~= 100 then set('progress', '{"percent":100,"message":""}') end
  set('state', 'SUCCEEDED', 'result', result, 'finishedAt', NOW, 'doneFence', fence)
  unset('fence', 'owner', 'error', 'errorType', 'errorRetryable', 'nextAttemptAt', 'queue', 'rung')
  if lease_owner() == owner then redis.call('DEL', KEYS[2]) end
  add_hop(hop)
  commit(tonumber(ttl))
end

-- The names of signals that a wait is for, from their JSON.
local function waited_for(names)
  local wanted = {}
  for _, name in ipairs(cjson.decode(names or '[]')) do wanted[name] = true end
  return wanted
end

-- Whether a signal that a wait is for has come that ended no wait yet: then those of the names that it is for have, from now on.
-- signalNames: of all signals, in their order. signalsTaken: by name, the number of the last one that ended a wait.
local function take_signals(names)
  local came = get('signalNames')
  if not came or names == '[]' then return false end
  local wanted, taken, number_of, found = waited_for(names), cjson.decode(get('signalsTaken') or '{}'), 0, false
  for name in string.gmatch(came, '[^,]+') do
    number_of = number_of + 1
    if wanted[name] and number_of > (taken[name] or 0) then
      taken[name] = number_of
      found = true
    end
  end
  if found then set('signalsTaken', cjson.encode(taken)) end
  return found
end

-- Whether a handler that runs again may have something to undo: it has waited, with an effect elsewhere under way; or it has begun, and
-- its type undoes.
local function may_undo() return number('step') > 0 or (get('undo') == '1' and get('startedAt')) end

-- A step of a task that is to be stopped ends without knowing of it: one more, in which the handler may undo.
local function grant_undo()
  if get('undoGranted') then return false end
  set('undoGranted', 1)
  return true
end

-- A task that was to be stopped ends so. Each copy that still waits somewhere finds its record at its claim.
local function end_cancelled()
  local by = get('cancelBy') or ''
  outlive(number('wakesAt'))
  outlive(number('nextAttemptAt'))
  set('state', 'CANCELLED', 'finishedAt', NOW, 'errorType', 'cancelled', 'error', 'cancelled by ' .. by, 'errorRetryable', 0)
  unset('decision', 'decidedSeq', 'before', 'fence', 'owner', 'nextAttemptAt', 'rung', 'queue', 'errorFingerprint')
  redis.call('DEL', KEYS[2])
  add_hop(cjson.encode({kind = 'cancelled', by = by}))
  commit(number('cancelTtl'))
end
