-- The broker provably did not take the redriven copy: the letter is a dead letter again. ARGV: 1 cycle begun, 2 seq decided.
if not get('before') or number('cycle') ~= tonumber(ARGV[1]) or number('decidedSeq') ~= tonumber(ARGV[2]) then return 'LATE' end
-- One letter is known: the next that the tap sees may be a second copy of the same death.
set('state', get('before'), 'cycle', tonumber(ARGV[1]) - 1, 'finishedAt', NOW, 'letters', 1)
forget('before', 'decision', 'decidedSeq')
commit(0)
return 'OK'
