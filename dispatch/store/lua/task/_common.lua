-- Put before every script. KEYS: 1 the record, 2 the lease, 3 the hops; all of one task, so of one cluster slot.
-- One clock for all: Redis's own, in epoch milliseconds. Workers' clocks may jump; leases and waits must not.
local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)
local MAX_HOPS = 200
local TERMINAL = {SUCCEEDED = true, DEAD_LETTERED = true, EXPIRED = true, CANCELLED = true, REJECTED = true}
local BURIED = {DEAD_LETTERED = true, EXPIRED = true}

local function get(field) return redis.call('HGET', KEYS[1], field) or nil end
local function number(field) return tonumber(get(field) or '0') or 0 end
local function set(...) redis.call('HSET', KEYS[1], ...) end
local function forget(...) redis.call('HDEL', KEYS[1], ...) end
local function exists() return redis.call('EXISTS', KEYS[1]) == 1 end
local function lease_owner() return redis.call('GET', KEYS[2]) or nil end

-- A hop comes as a JSON object without seq and time, which only the server knows.
local function hop(json)
  if json == '' then return end
  local n = redis.call('HINCRBY', KEYS[1], 'hops', 1)
  redis.call('RPUSH', KEYS[3], '{"seq":' .. n .. ',"at":' .. NOW .. ',' .. string.sub(json, 2))
  redis.call('LTRIM', KEYS[3], -MAX_HOPS, -1)
end

-- A record that Redis lost is recreated from what its message says: a JSON object of fields.
local function recreate(seed)
  for field, value in pairs(cjson.decode(seed)) do set(field, value) end
  redis.call('HSETNX', KEYS[1], 'createdAt', NOW)
end

-- Every transition ends here: revision, time to live (0: for as long as the task lives) and the word to whoever waits.
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
