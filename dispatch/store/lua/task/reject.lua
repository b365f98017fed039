-- The broker did not take the message, so the task never runs.
-- Only the unpublished, unclaimed and never decided: a copy that a worker has claimed proves that it was published.
-- No record (Redis lost it): what the broker did not take never runs all the same.
local error_type, error_text, ttl, hop, silent_for = unpack(ARGV)
if not exists() then return 'OK' end
if get('state') ~= 'SCHEDULED' or number('published') == 1 or number('cycle') > 0 or get('decision') then
  return get('state') == 'REJECTED' and 'OK' or 'CLAIMED'
end
if NOW - number('updatedAt') < tonumber(silent_for) then return 'YOUNG' end
set('state', 'REJECTED', 'finishedAt', NOW, 'errorType', error_type, 'error', error_text, 'errorRetryable', 1)
add_hop(hop)
commit(tonumber(ttl))
return 'OK'
