#!lua flags=allow-oom
-- Lets the bridge of one term append, and no bridge of a term before. allow-oom: taking over must work with full memory.
-- KEYS[1] {p}:fence:<name>  the newest term: compare, write
-- ARGV[1] term
-- Returns 1; 'FENCED' where a later term was here.
local was = redis.call('GET', KEYS[1])
if was and tonumber(was) > tonumber(ARGV[1]) then return 'FENCED' end
redis.call('SET', KEYS[1], ARGV[1])
return 1
