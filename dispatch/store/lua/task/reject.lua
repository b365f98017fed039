-- The broker did not take it, so it never runs. ARGV: 1 error type, 2 error, 3 ttl ms, 4 hop, 5 silent for ms at least.
-- Only the unpublished, unclaimed and never decided: a copy that a worker has claimed proves that it was published.
-- No record (Redis lost it): what the broker did not take never runs all the same.
if not exists() then return 'OK' end
if get('state') ~= 'SCHEDULED' or number('published') == 1 or number('cycle') > 0 or get('decision') then
  return get('state') == 'REJECTED' and 'OK' or 'CLAIMED'
end
if NOW - number('updatedAt') < tonumber(ARGV[5]) then return 'YOUNG' end
set('state', 'REJECTED', 'finishedAt', NOW, 'errorType', ARGV[1], 'error', ARGV[2], 'errorRetryable', 1)
hop(ARGV[4])
commit(tonumber(ARGV[3]))
return 'OK'
