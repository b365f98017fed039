-- The broker provably did not take the redriven copy: the task is a dead letter again. cycle: the one that had begun.
local cycle, seq = unpack(ARGV)
if not get('before') or number('cycle') ~= tonumber(cycle) or number('decidedSeq') ~= tonumber(seq) then return 'LATE' end
-- One dead letter is counted: the next that the recorder reads may be a second copy of the same death.
set('state', get('before'), 'cycle', tonumber(cycle) - 1, 'finishedAt', NOW, 'letters', 1)
unset('before', 'decision', 'decidedSeq')
commit(0)
return 'OK'
