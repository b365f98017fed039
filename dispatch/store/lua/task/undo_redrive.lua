-- The broker provably did not take the redriven copy: the task is a dead letter again. cycle: the one that had begun.
local cycle, seq = unpack(ARGV)
if not get('before') or number('cycle') ~= tonumber(cycle) or number('decidedSeq') ~= tonumber(seq) then return {'LATE'} end
-- What the redrive had taken the place of: the message of before, and where its handler was.
local undo = cjson.decode(get('decision')).undo or {}
if undo.message then
  redis.call('SET', KEYS[4], undo.message)
  unset('concurrencyKey')
end
for _, field in ipairs({'step', 'checkpoint', 'concurrencyKey'}) do
  if undo[field] then set(field, undo[field]) end
end
-- One dead letter is counted: the next that the recorder reads may be a second copy of the same death.
set('state', get('before'), 'cycle', tonumber(cycle) - 1, 'finishedAt', NOW, 'letters', 1)
unset('before', 'decision', 'decidedSeq')
commit(0)
return {'OK', undo.message and #undo.message or 0}
