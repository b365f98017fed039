-- A word from the handler. ARGV: 1 fence, 2 progress, 3 hop. Says whether somebody asked for the task to stop.
if get('fence') ~= ARGV[1] then return 'REFUSED' end
if ARGV[2] ~= '' then
  set('progress', ARGV[2])
  hop(ARGV[3])
  commit(0)
end
return get('cancelRequested') == '1' and 'CANCEL' or 'OK'
