#!lua flags=allow-oom
-- Says that a worker of a group lives, and who else does. allow-oom: workers make room.
-- KEYS[1] {gateway}:workers:<g> worker -> server ms of its last beat: read, write, forget
-- ARGV[1] worker, ARGV[2] ms after which a silent one is dead, ARGV[3] '1': it leaves
-- Returns the names of the living.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
if ARGV[3] == '1' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now))
end
local living = {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  -- The distance both ways: a clock that was set back must not keep the dead alive.
  if math.abs(now - tonumber(stored[i + 1])) <= tonumber(ARGV[2]) then
    living[#living + 1] = stored[i]
  else
    redis.call('HDEL', KEYS[1], stored[i])
  end
end
table.sort(living)
return living
