#!lua flags=allow-oom
-- Keeps what became of one request. allow-oom: its event is settled after its reply, and settling makes room.
-- KEYS[1] {p}:reply:<event id>  '+' JSON, or '-' word LF sentence: read, write
-- ARGV[1] the reply, ARGV[2] ms that it is kept
-- Returns 1; 0 where an earlier one stays. The first one does, unless that says given up and this one says done.
local was = redis.call('GETRANGE', KEYS[1], 0, 0)
if was == '+' or (was == '-' and string.sub(ARGV[1], 1, 1) == '-') then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
