-- A command that also a Redis with its memory full must carry out: once a script has written, nothing is refused to it.
-- KEYS: 1 the command's key, without a time to live. ARGV: the command's name, and its words after the key.
redis.call('PERSIST', KEYS[1])
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
