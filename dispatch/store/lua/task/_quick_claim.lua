-- The usual case, a task's first run: accepted, published, and nothing else has happened to it. Nothing to judge, to mend or to clear.
do
  local cycle, seq, attempt, owner, fence, lease_ms, _, worker, hop, _, deadline, step = unpack(ARGV)
  local state, record_cycle, record_seq, published, hops, hop1, hop2, decision, last, revision = unpack(redis.call(
    'HMGET', KEYS[1], 'state', 'cycle', 'seq', 'published', 'hops', 'hop1', 'hop2', 'decision', 'fence', 'revision'))
  if state == 'QUEUED' and record_cycle == cycle and record_seq == seq and published == '1' and hops == '2' and hop1 and hop2
      and not decision and not last and deadline == '' and step == '' and redis.call('EXISTS', KEYS[2]) == 0 then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('HDEL', KEYS[1], 'queue', 'hop1', 'hop2') -- first: then the rest is admitted with Redis full, too
    redis.call('HSET', KEYS[1], 'state', 'RUNNING', 'attempt', attempt, 'owner', owner, 'fence', fence, 'worker', worker,
               'startedAt', now, 'hops', 3, 'revision', revision + 1, 'updatedAt', now)
    redis.call('SET', KEYS[2], owner, 'PX', lease_ms)
    local first, second = string.match(hop1, '^%d+'), string.match(hop2, '^%d+')
    redis.call('RPUSH', KEYS[3], '{"seq":1,"at":' .. first .. ',"kind":"accepted"' .. string.sub(hop1, #first + 1),
               '{"seq":2,"at":' .. second .. ',"kind":"published"' .. string.sub(hop2, #second + 1),
               '{"seq":3,"at":' .. now .. ',' .. string.sub(hop, 2))
    redis.call('PUBLISH', KEYS[1], revision + 1)
    return {'RUN'}
  end
end
