#!lua flags=allow-oom
-- Moves a group's cursor, while nobody holds the lease or by voiding it.
-- KEYS[1] {p}                   read where it begins and ends
-- KEYS[2] {p}:epochs            read `current`
-- KEYS[3] {p}:group:<g>         lease, epoch, until: compare; cursor, claimed, oldest, lease, holder, epoch: write
-- KEYS[4] {p}:group:<g>:parked  forget what will be read again
-- KEYS[5] {p}:group:<g>:crashes forget what will be read again
-- ARGV[1] 'earliest' | 'latest' | offset: the last one not to be read, ARGV[2] '1': void a lease
-- Returns the new cursor, 'ABSENT' or 'HELD'.
if redis.call('HEXISTS', KEYS[3], 'cursor') == 0 then return 'ABSENT' end
local function text(number) return string.format('%.0f', number) end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local current = redis.call('HGET', KEYS[2], 'current')
local group = redis.call('HMGET', KEYS[3], 'lease', 'epoch', 'until')
if ARGV[2] ~= '1' and group[1] ~= '' and group[2] == current and tonumber(group[3]) > now then return 'HELD' end

local function offset_of(id) return tonumber(string.match(id, '-(%d+)$')) end
local first, top
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then top = info[i + 1] end
  if info[i] == 'first-entry' and info[i + 1] then first = offset_of(info[i + 1][1]) end
end
-- Another program's entry above ours is no top: its offset would stand for all that are to come.
if offset_of(top) >= 4503599627370496 or tonumber(string.match(top, '^%d+')) > tonumber(current) then
  local newest = redis.call('XREVRANGE', KEYS[1], current .. '-4503599627370495', '-', 'COUNT', 1)[1]
  top = newest and newest[1] or current .. '-0'
end
top = offset_of(top)
local floor = first and math.min(first - 1, top) or top
local cursor = floor
if ARGV[1] == 'latest' then cursor = top
elseif ARGV[1] ~= 'earliest' then cursor = math.max(floor, math.min(top, tonumber(ARGV[1]))) end

local oldest = cursor + 1
for _, offset in ipairs(redis.call('HKEYS', KEYS[4])) do
  local number = tonumber(offset)
  if number < 4503599627370496 then -- a replay stays: it is a copy, and will not be read
    if number > cursor then redis.call('HDEL', KEYS[4], offset) else oldest = math.min(oldest, number) end
  end
end
for _, offset in ipairs(redis.call('HKEYS', KEYS[5])) do
  local number = tonumber(offset)
  if number > cursor and number < 4503599627370496 then redis.call('HDEL', KEYS[5], offset) end
end
redis.call('HSET', KEYS[3], 'cursor', text(cursor), 'claimed', text(cursor), 'oldest', text(oldest),
  'lease', '', 'holder', '', 'until', '0', 'epoch', current)
return text(cursor)
