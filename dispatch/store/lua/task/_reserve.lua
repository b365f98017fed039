-- Precedes every script of this folder but `accept`. A Redis whose memory is full refuses commands that may need memory, in
-- a script too, unless the script has written already: after a deletion, of nothing here, it may. So what was accepted
-- goes on, ends and makes room, and only what is new is refused.
redis.call('HDEL', KEYS[1], '')
