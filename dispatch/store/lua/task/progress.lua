-- Records a handler's progress ('' only asks). Answers CANCEL when the record asks the handler to stop.
local fence, progress, hop = unpack(ARGV)
if get('fence') ~= fence then return 'REFUSED' end
if progress ~= '' then
  set('progress', progress)
  -- Hops are bounded: in a long run the last progress takes the place of the one before, not of how the task came here.
  if redis.call('LLEN', KEYS[3]) >= MAX_HOPS / 2 then
    local last = cjson.decode(redis.call('LINDEX', KEYS[3], -1))
    if last.kind == 'progress' then redis.call('RPOP', KEYS[3]) end
  end
  add_hop(hop)
  commit(0)
end
return get('cancelRequested') == '1' and 'CANCEL' or 'OK'
