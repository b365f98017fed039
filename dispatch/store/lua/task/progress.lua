-- A word from the handler. ARGV: 1 fence, 2 progress, 3 hop. Says whether somebody asked for the task to stop.
if get('fence') ~= ARGV[1] then return 'REFUSED' end
if ARGV[2] ~= '' then
  set('progress', ARGV[2])
  -- Hops are bounded: in a long run the last progress takes the place of the one before, not of how the task came here.
  if redis.call('LLEN', KEYS[3]) >= MAX_HOPS / 2 then
    local last = cjson.decode(redis.call('LINDEX', KEYS[3], -1))
    if last.kind == 'progress' then redis.call('RPOP', KEYS[3]) end
  end
  hop(ARGV[3])
  commit(0)
end
return get('cancelRequested') == '1' and 'CANCEL' or 'OK'
