-- Counts tasks among what their principal's hold. KEYS: 1 a hash: task id → '<kind>:<bytes>', and a sum for each kind
-- and for the bytes, '#<kind>' and '#bytes': no task id has a '#'. Sums and entries change together, so that only an entry can
-- be wrong, never a sum by itself.
-- ARGV, for each task: its id; its kind: open, dead, or '' for a task that holds nothing any more; the bytes of its message,
-- 0: as before. Answers: the sums.
redis.call('HDEL', KEYS[1], '') -- first: then the rest is admitted with Redis full, too
local names = {'#open', '#dead', '#bytes'}
for at = 1, #ARGV, 3 do names[#names + 1] = ARGV[at] end
local held = redis.call('HMGET', KEYS[1], unpack(names))
local sums = {open = tonumber(held[1] or 0), dead = tonumber(held[2] or 0), bytes = tonumber(held[3] or 0)}
local changed, gone, entries = {}, {}, {}
for at = 1, #ARGV, 3 do
  local task_id, kind, bytes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local was = entries[task_id] -- a task may be there twice
  if was == nil then was = held[3 + (at + 2) / 3] end
  if was and was ~= '' then
    local was_kind, was_bytes = string.match(was, '^(%a+):(%d+)$')
    if bytes == 0 then bytes = tonumber(was_bytes) end
    sums[was_kind] = sums[was_kind] - 1
    sums.bytes = sums.bytes - was_bytes
  end
  if kind ~= '' then
    sums[kind] = sums[kind] + 1
    sums.bytes = sums.bytes + bytes
  end
  entries[task_id] = kind ~= '' and kind .. ':' .. bytes or (was and '' or nil)
end
for task_id, entry in pairs(entries) do
  if entry == '' then
    gone[#gone + 1] = task_id
  else
    changed[#changed + 1] = task_id
    changed[#changed + 1] = entry
  end
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
if #gone + #changed > 0 then
  redis.call('HSET', KEYS[1], '#open', sums.open, '#dead', sums.dead, '#bytes', sums.bytes, unpack(changed))
end
return {sums.open, sums.dead, sums.bytes}
