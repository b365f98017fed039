-- Counts records by type, state, and of dead letters by error type. Reads alone: the user of a replica may run it.
-- KEYS: the records; of one server, since they are of many cluster slots. since, until: epoch ms; only records accepted from the first
-- on and before the second are counted. Answers rows: type, state, error type of a dead letter or '', number.
local since, before = unpack(ARGV)
since, before = tonumber(since), tonumber(before)
local rows, order = {}, {}
for _, record in ipairs(KEYS) do
  local type, state, error_type, discarded, created =
    unpack(redis.call('HMGET', record, 'type', 'state', 'errorType', 'discarded', 'createdAt'))
  created = tonumber(created or '0') or 0
  if state and created >= since and created < before then
    local dead = (state == 'DEAD_LETTERED' or state == 'EXPIRED') and discarded ~= '1'
    local row = {type or '', state, dead and (error_type or '') or ''}
    local key = #row[1] .. ':' .. table.concat(row, ':')
    if rows[key] then
      rows[key][4] = rows[key][4] + 1
    else
      row[4], rows[key] = 1, row
      order[#order + 1] = row
    end
  end
end
return order
