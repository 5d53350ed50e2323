#!lua flags=allow-oom
-- Keeps one revocation and tells every edge. allow-oom: who lost a token cannot wait for room; both keys are bounded.
-- KEYS[1] {gateway}:revoked  read, written: field `WHAT NAME`, value `UNTIL AT BY`
-- KEYS[2] {gateway}:control  append, trim
-- ARGV[1] what, ARGV[2] name, ARGV[3] seconds it lasts, ARGV[4] by whom, ARGV[5] most in force, ARGV[6] notices kept
-- Returns the second it began, or -1 where too many are in force.
local now = tonumber(redis.call('TIME')[1])
local field = ARGV[1] .. ' ' .. ARGV[2]
local function full()
  return redis.call('HEXISTS', KEYS[1], field) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5])
end
if full() then
  local rows = redis.call('HGETALL', KEYS[1])
  for n = 1, #rows, 2 do
    if tonumber(string.match(rows[n + 1], '^%d+')) <= now then redis.call('HDEL', KEYS[1], rows[n]) end
  end
  if full() then return -1 end
end
local ends = now + tonumber(ARGV[3])
local value = string.format('%d %d %s', ends, now, ARGV[4])
redis.call('HSET', KEYS[1], field, value)
-- One number after the other, so that a reader who was away too long sees the hole.
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '0-*', 'kind', 'revoked', 'data', field .. '\n' .. value)
return now
