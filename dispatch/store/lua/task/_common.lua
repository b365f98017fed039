-- Precedes every script of this folder, after the constants that Python passes in: MAX_HOPS, TERMINAL, DEAD.
-- KEYS: 1 the record, 2 the lease, 3 the hops; all of one task, so of one cluster slot.
-- One clock for all: Redis's own, in epoch milliseconds. Workers' clocks may jump; leases and waits must not.
local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

local function get(field) return redis.call('HGET', KEYS[1], field) or nil end
local function number(field) return tonumber(get(field) or '0') or 0 end
local function set(...) redis.call('HSET', KEYS[1], ...) end
local function unset(...) redis.call('HDEL', KEYS[1], ...) end
local function exists() return redis.call('EXISTS', KEYS[1]) == 1 end
local function lease_owner() return redis.call('GET', KEYS[2]) or nil end

-- A hop comes as a JSON object without seq and time, which only the server knows.
local function add_hop(hop)
  if hop == '' then return end
  local n = redis.call('HINCRBY', KEYS[1], 'hops', 1)
  redis.call('RPUSH', KEYS[3], '{"seq":' .. n .. ',"at":' .. NOW .. ',' .. string.sub(hop, 2))
  redis.call('LTRIM', KEYS[3], -MAX_HOPS, -1)
end

-- Writes the fields of a seed: a JSON object made from the task's message.
local function recreate(seed)
  for field, value in pairs(cjson.decode(seed)) do set(field, value) end
  redis.call('HSETNX', KEYS[1], 'createdAt', NOW)
end

-- Whether there is a record to work on, and whether it was rebuilt just now. Redis may have lost it; without a seed
-- the caller answers MISSING, and comes again with one.
local function present(seed)
  if exists() then return true, false end
  if seed == '' then return false, false end
  recreate(seed)
  return true, true
end

-- Ends every transition: raises the revision, sets the time to live (0: as long as the task lives), publishes the change.
local function commit(ttl)
  local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
  set('updatedAt', NOW)
  for i = 1, #KEYS do
    if i ~= 2 then
      if ttl > 0 then redis.call('PEXPIRE', KEYS[i], ttl) else redis.call('PERSIST', KEYS[i]) end
    end
  end
  redis.call('PUBLISH', KEYS[1], revision)
  return revision
end
