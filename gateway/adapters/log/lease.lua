#!lua flags=allow-oom
-- Takes the lease of one partition for one group, and makes the group if there is none. allow-oom: workers make room.
-- KEYS[1] {p}                   read where it begins and ends
-- KEYS[2] {p}:epochs            read `replid`, `current` and the table
-- KEYS[3] {p}:groups            names of the groups that trimming must ask: add
-- KEYS[4] {p}:group:<g>         cursor, claimed, oldest, lease, holder, until, ttl, epoch, serial, paused, replayed
-- KEYS[5] {p}:group:<g>:parked  offset -> parked event: read
-- KEYS[6] {p}:group:<g>:crashes offset -> workers that died over it: read
-- ARGV[1] group, ARGV[2] new token, ARGV[3] worker, ARGV[4] lease ms, ARGV[5] start: 'earliest' | 'latest' | offset
-- Returns 'STALE' (open an epoch, ask again), {'HELD', holder}, {'PAUSED'}, or
--   {'OK', cursor, claimed, epoch, server ms, replayed, 1 if a holder did not release, parked flat, crashes flat}.
local known = redis.call('HMGET', KEYS[2], 'replid', 'current')
if known[1] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
  or redis.call('EXISTS', KEYS[1]) == 0 then
  return 'STALE'
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local function text(number) return string.format('%.0f', number) end

local was = redis.call('HMGET', KEYS[4], 'lease', 'holder', 'until', 'ttl', 'epoch', 'paused', 'cursor', 'claimed')
if was[6] == '1' then return {'PAUSED'} end
-- Who asks for what stands under his own name was started anew, or never heard that he got it: he waits for nobody.
if was[1] and was[1] ~= '' and was[2] ~= ARGV[3] and was[5] == known[2] then
  local left = tonumber(was[3]) - now
  -- More left than anybody ever gave: the clock was set back, and nobody knows whether the holder lives.
  if left > 0 and left <= 2 * tonumber(was[4]) then return {'HELD', was[2]} end
end

local function offset_of(id) return tonumber(string.match(id, '-(%d+)$')) end
local first, top
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then top = info[i + 1] end
  if info[i] == 'first-entry' and info[i + 1] then first = offset_of(info[i + 1][1]) end
end
-- Another program's entry above ours is no top: its offset would stand for all that are to come.
if offset_of(top) >= 4503599627370496 or tonumber(string.match(top, '^%d+')) > tonumber(known[2]) then
  local newest = redis.call('XREVRANGE', KEYS[1], known[2] .. '-4503599627370495', '-', 'COUNT', 1)[1]
  top = newest and newest[1] or known[2] .. '-0'
end
top = offset_of(top)
local floor = first and math.min(first - 1, top) or top

local cursor, claimed = tonumber(was[7] or '0'), tonumber(was[8] or '0')
if was[7] then
  -- Where the log lost what the group had finished, its offsets were given again: go back to where the histories part.
  -- Not before what is trimmed: there it may have been put by trimming, in a later epoch than its last holder's.
  local table_ = redis.call('HGETALL', KEYS[2])
  for i = 1, #table_, 2 do
    if string.match(table_[i], '^%d+$') and tonumber(table_[i]) > tonumber(was[5]) then
      local agreed = math.max(tonumber(table_[i + 1]) - 1, floor)
      cursor, claimed = math.min(cursor, agreed), math.min(claimed, agreed)
    end
  end
else
  if ARGV[5] == 'earliest' then cursor = floor
  elseif ARGV[5] == 'latest' then cursor = top
  else cursor = math.max(floor, math.min(top, tonumber(ARGV[5]))) end
  claimed = cursor
  redis.call('SADD', KEYS[3], ARGV[1])
  -- Replays are numbered beyond every offset, so that they are nobody's entry and hold no trimming back.
  redis.call('HSET', KEYS[4], 'oldest', text(cursor + 1), 'replayed', '4503599627370496')
end
redis.call('HSET', KEYS[4], 'lease', ARGV[2], 'holder', ARGV[3], 'until', text(now + tonumber(ARGV[4])), 'ttl', ARGV[4],
  'epoch', known[2], 'serial', '0', 'cursor', text(cursor), 'claimed', text(claimed))
-- Parked first in the future: the clock was set back since. What is left is then unknown, and at most all of it; by the
-- due time alone it would be as much longer as the clock was set back.
local parked = redis.call('HGETALL', KEYS[5])
for i = 2, #parked, 2 do
  local entry, due, first, rest = string.match(parked[i], '^(%d+ %d+) (%d+) (%d+)( .*)$')
  if due ~= '0' and tonumber(first) > now then
    parked[i] = entry .. ' ' .. text(now + tonumber(due) - tonumber(first)) .. ' ' .. first .. rest
  end
end
return {'OK', text(cursor), text(claimed), known[2], text(now), redis.call('HGET', KEYS[4], 'replayed'),
  was[1] and was[1] ~= '' and 1 or 0, parked, redis.call('HGETALL', KEYS[6])}
