-- The usual case, before anything else has happened to the task: nothing to complete, no time to live to change, and its reminder is
-- that of the unpublished: nothing is to be checked now until its copy may have left its queue.
-- KEYS[5], where they are on this node: the sweeper's reminders.
do
  local queue, to, hop, rest = unpack(ARGV)
  local state, published, revision, hops = unpack(redis.call('HMGET', KEYS[1], 'state', 'published', 'revision', 'hops'))
  if state == 'SCHEDULED' and published == '0' and hops == '1' then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('HDEL', KEYS[1], '') -- first: then the rest is admitted with Redis full, too
    revision = revision + 1
    redis.call('HSET', KEYS[1], 'state', to, 'queue', queue, 'published', 1, 'hops', 2, 'hop2', now .. string.sub(hop, 20),
               'revision', revision, 'updatedAt', now)
    if KEYS[5] then redis.call('ZADD', KEYS[5], 'XX', time[1] + rest, string.match(KEYS[1], '{([^{]*)}$')) end
    redis.call('PUBLISH', KEYS[1], revision)
    return 'OK'
  end
end
