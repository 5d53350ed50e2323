#!lua flags=allow-oom
-- Tells every edge that a reply is there. allow-oom: as reply.lua, and the stream is bounded.
-- KEYS[1] {gateway}:replies  append, trim
-- ARGV[1] partition, ARGV[2] event id, ARGV[3] entries kept
-- One number after the other, so that a reader who was away too long sees the hole.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '0-*', 'partition', ARGV[1], 'id', ARGV[2])
return 1
