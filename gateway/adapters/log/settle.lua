#!lua flags=allow-oom
-- Remembers what a worker finished, parked and gave up, all of it or nothing, if it still holds the lease.
-- allow-oom: who settles makes room.
-- KEYS[1] {p}:epochs            read `replid` and `current`
-- KEYS[2] {p}:group:<g>         compare lease, epoch, serial; write cursor, claimed, oldest, until, serial
-- KEYS[3] {p}:group:<g>:parked  offset -> "epoch attempts due first #key LF key error": write, forget
-- KEYS[4] {p}:group:<g>:crashes forget what a suspect survived
-- KEYS[5] {p}:group:<g>:replays forget what is finished
-- KEYS[6] {p}:dead              append letters
-- ARGV[1] token, ARGV[2] serial of this settle, ARGV[3] cursor ('': as it was), ARGV[4] oldest, ARGV[5] claimed,
-- ARGV[6] dead letters kept, ARGV[7] number of parked, ARGV[8] of released, ARGV[9] of survived, ARGV[10] arguments of
--   one letter, then of each parked six: offset, epoch, attempts, ms until it is due ('0': at once), key, error;
--   released offsets; survived offsets; letters
-- Returns 'FENCED' (nothing was done), or {'1' if paused, highest replay number}.
local known = redis.call('HMGET', KEYS[1], 'replid', 'current')
local group = redis.call('HMGET', KEYS[2], 'lease', 'epoch', 'serial', 'ttl', 'paused', 'replayed')
if group[1] ~= ARGV[1] or group[2] ~= known[2]
  or known[1] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') then
  return 'FENCED'
end
-- Its answer was lost, and it is asked again: what was done is not done twice.
if group[3] == ARGV[2] then return {group[5] or '', group[6]} end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local function text(number) return string.format('%.0f', number) end

if ARGV[3] == '' then
  redis.call('HSET', KEYS[2], 'serial', ARGV[2], 'until', text(now + tonumber(group[4])), 'claimed', ARGV[5])
else
  redis.call('HSET', KEYS[2], 'serial', ARGV[2], 'until', text(now + tonumber(group[4])), 'claimed', ARGV[5],
    'cursor', ARGV[3], 'oldest', ARGV[4])
end

local at = 11
for _ = 1, tonumber(ARGV[7]) do
  local was = redis.call('HGET', KEYS[3], ARGV[at])
  local first = was and string.match(was, '^%d+ %d+ %d+ (%d+)') or text(now)
  local due = ARGV[at + 3] == '0' and '0' or text(now + tonumber(ARGV[at + 3]))
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1] .. ' ' .. ARGV[at + 2] .. ' ' .. due .. ' ' .. first .. ' '
    .. #ARGV[at + 4] .. '\n' .. ARGV[at + 4] .. ARGV[at + 5])
  at = at + 6
end
for _ = 1, tonumber(ARGV[8]) do
  redis.call('HDEL', KEYS[3], ARGV[at])
  redis.call('HDEL', KEYS[5], ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[9]) do
  redis.call('HDEL', KEYS[4], ARGV[at])
  at = at + 1
end
local size = tonumber(ARGV[10])
while at <= #ARGV do
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', ARGV[6], '*', unpack(ARGV, at, at + size - 1))
  at = at + size
end

return {group[5] or '', group[6]}
