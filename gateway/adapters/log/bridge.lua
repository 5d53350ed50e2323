#!lua flags=allow-oom
-- The right to serve one broker: one bridge has it at a time. allow-oom: devices need their bridge when memory is full.
-- KEYS[1] {gateway}:bridge:<name>  lease, holder, until, ttl, term: compare, write
-- ARGV[1] 'take' | 'renew' | 'release', ARGV[2] token, ARGV[3] holder, ARGV[4] lease ms
-- Returns {'OK', term}; {'HELD', holder} to who would take it; 'FENCED' to who has it no more (nothing was done).
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local function text(number) return string.format('%.0f', number) end
local was = redis.call('HMGET', KEYS[1], 'lease', 'holder', 'until', 'ttl', 'term')
local ours = was[1] == ARGV[2]

if ARGV[1] == 'take' and not ours then
  if was[1] and was[1] ~= '' then
    local left = tonumber(was[3]) - now
    -- More left than anybody ever gave: the clock was set back, and nobody knows whether the holder lives.
    if left > 0 and left <= 2 * tonumber(was[4]) then return {'HELD', was[2]} end
  end
  -- Milliseconds, so that a server which lost its data gives no term twice.
  local term = text(math.max(tonumber(was[5] or '0') + 1, now))
  redis.call('HSET', KEYS[1], 'lease', ARGV[2], 'holder', ARGV[3], 'until', text(now + tonumber(ARGV[4])),
    'ttl', ARGV[4], 'term', term)
  return {'OK', term}
end
if not ours then return 'FENCED' end
if ARGV[1] == 'release' then
  redis.call('HSET', KEYS[1], 'lease', '', 'holder', '', 'until', '0')
else
  -- Expired and not taken: it is still its holder's.
  redis.call('HSET', KEYS[1], 'until', text(now + tonumber(ARGV[4])))
end
return {'OK', was[5]}
