-- The usual case: a run that has its lease, of a task that neither waited between steps, or for an operator, nor reported progress.
do
  local fence, owner, result, ttl, hop = unpack(ARGV)
  local state, held, progress, step, hop1, hops, revision, copy_until = unpack(redis.call(
    'HMGET', KEYS[1], 'state', 'fence', 'progress', 'step', 'hop1', 'hops', 'revision', 'copyUntil'))
  hops = tonumber(hops)
  if state == 'RUNNING' and held == fence and not progress and not step and not hop1 and not copy_until and hops and hops < MAX_HOPS
      and tonumber(ttl) > 0 and redis.call('GET', KEYS[2]) == owner then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    -- First: then the rest is admitted with Redis full, too.
    redis.call('HDEL', KEYS[1], 'fence', 'owner', 'error', 'errorType', 'errorRetryable', 'nextAttemptAt', 'queue', 'rung', 'message')
    redis.call('HSET', KEYS[1], 'state', 'SUCCEEDED', 'result', result, 'finishedAt', now, 'doneFence', fence, 'hops', hops + 1,
               'revision', revision + 1, 'updatedAt', now)
    redis.call('DEL', KEYS[2], KEYS[4])
    redis.call('RPUSH', KEYS[3], '{"seq":' .. hops + 1 .. ',"at":' .. now .. ',' .. string.sub(hop, 2))
    redis.call('PEXPIRE', KEYS[1], ttl)
    redis.call('PEXPIRE', KEYS[3], ttl)
    redis.call('PUBLISH', KEYS[1], revision + 1)
    return 'OK'
  end
end
