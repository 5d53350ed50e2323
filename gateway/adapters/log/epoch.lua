#!lua flags=allow-oom
-- Opens an epoch where the server is not the one that the newest epoch belongs to; one call is the compare-and-set.
-- allow-oom: a server that came back full must still say that it came back.
-- KEYS[1] {p}          the log: read its top, append the control entry
-- KEYS[2] {p}:epochs   epoch -> first offset; `replid` and `current` of the newest
-- KEYS[3] {p}:marks    read: the top that a deleted log once had
-- Returns {current epoch, 1 if this call opened it else 0}.
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local known = redis.call('HMGET', KEYS[2], 'replid', 'current')
local exists = redis.call('EXISTS', KEYS[1]) == 1
if exists and known[1] == replid then
  return {known[2], 0}
end

local epoch, offset = 0, 0
local function above(id)
  local e, o = string.match(id, '^(%d+)-(%d+)$')
  epoch, offset = math.max(epoch, tonumber(e)), math.max(offset, tonumber(o))
end
if exists then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then above(info[i + 1]) end
  end
  if known[2] and offset >= 4503599627370496 then
    -- No append of ours came so far: go on after the last that did.
    local newest = redis.call('XREVRANGE', KEYS[1], known[2] .. '-4503599627370495', '-', 'COUNT', 1)[1]
    offset = newest and tonumber(string.match(newest[1], '-(%d+)$')) or tonumber(redis.call('HGET', KEYS[2], known[2]))
  end
else
  -- Somebody deleted the log alone: offsets still go on, from the highest that is remembered.
  local table_ = redis.call('HGETALL', KEYS[2])
  for i = 1, #table_, 2 do
    if string.match(table_[i], '^%d+$') then above(table_[i] .. '-' .. table_[i + 1]) end
  end
  local mark = redis.call('ZREVRANGE', KEYS[3], 0, 0)
  if mark[1] then above(mark[1]) end
end

-- Milliseconds, not seconds: a server without its data can be back within the second, and must not repeat an epoch.
local now = redis.call('TIME')
epoch = math.max(epoch + 1, tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
local opened, first = string.format('%.0f', epoch), string.format('%.0f', offset + 1)
redis.call('XADD', KEYS[1], opened .. '-' .. first, 'ctl', 'epoch')
redis.call('HSET', KEYS[2], opened, first, 'replid', replid, 'current', opened)
return {opened, 1}
