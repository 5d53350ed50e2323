#!lua flags=allow-oom
-- Says what an edge is and does, and what the others said. allow-oom: one short entry an edge.
-- KEYS[1] {gateway}:edges edge -> server ms of its last word, a space, the word: read, write, forget
-- ARGV[1] edge, ARGV[2] its word, '' where it leaves, ARGV[3] ms after which a silent one is gone
-- Returns the words of all that live.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
end
local words = {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local at, word = string.match(stored[i + 1], '^(%d+) (.*)$')
  -- The distance both ways: a clock that was set back must not keep the dead alive.
  if at and math.abs(now - tonumber(at)) <= tonumber(ARGV[3]) then
    words[#words + 1] = word
  else
    redis.call('HDEL', KEYS[1], stored[i])
  end
end
return words
