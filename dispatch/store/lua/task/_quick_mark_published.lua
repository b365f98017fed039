-- The usual case, before anything else has happened to the task: nothing to complete, no time to live to change.
do
  local queue, to, hop = unpack(ARGV)
  local state, published, revision, hops = unpack(redis.call('HMGET', KEYS[1], 'state', 'published', 'revision', 'hops'))
  if state == 'SCHEDULED' and published == '0' then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('HDEL', KEYS[1], '') -- first: then the rest is admitted with Redis full, too
    hops, revision = hops + 1, revision + 1
    redis.call('HSET', KEYS[1], 'state', to, 'queue', queue, 'published', 1, 'hops', hops, 'revision', revision, 'updatedAt', now)
    redis.call('RPUSH', KEYS[3], '{"seq":' .. hops .. ',"at":' .. now .. ',' .. string.sub(hop, 2))
    redis.call('PUBLISH', KEYS[1], revision)
    return 'OK'
  end
end
