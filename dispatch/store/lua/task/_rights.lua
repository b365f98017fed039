-- Precedes every script of this folder. A right that the user lacks ends a script where the command stands, with half a transition
-- written: it is refused before anything is. COMMANDS: those that the script calls. Redis can be asked since 7.0.
if redis.acl_check_cmd then
  local lacks = not redis.acl_check_cmd('PUBLISH', KEYS[1]) and 'PUBLISH on the channel ' .. KEYS[1]
  for _, command in ipairs(COMMANDS) do
    if not redis.acl_check_cmd(command, KEYS[1]) then lacks = command end
  end
  if lacks then return redis.error_reply('NOPERM nothing was written: the user lacks ' .. lacks) end
end

