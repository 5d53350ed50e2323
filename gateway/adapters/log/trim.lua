#!lua flags=allow-oom
-- Writes a mark when one is due and trims one page by the marks. allow-oom: trimming is what makes room.
-- KEYS[1] {p}          trim
-- KEYS[2] {p}:epochs   forget epochs that are trimmed whole
-- KEYS[3] {p}:heads    forget heads whose entry goes
-- KEYS[4] {p}:idem     forget idempotency keys whose entry goes
-- KEYS[5] {p}:marks    server time (ms) -> top: read, write, forget
-- KEYS[6] {p}:trimmer  the lease: token of who trims
-- ARGV[1] token, ARGV[2] lease ms, ARGV[3] retention ms, ARGV[4] events kept whatever their age,
-- ARGV[5] ms between marks, ARGV[6] entries of a page
-- Returns {entries trimmed, 1 if more are due else 0}; {-1, 0} where another holds the lease.
local holder = redis.call('GET', KEYS[6])
if holder and holder ~= ARGV[1] then return {-1, 0} end
-- The lease only saves double work: each page is atomic, and trimming it twice changes nothing.
redis.call('SET', KEYS[6], ARGV[1], 'PX', ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0} end

local function offset_of(id) return tonumber(string.match(id, '-(%d+)$')) end
local top
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then top = info[i + 1] end
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local newest = redis.call('ZREVRANGE', KEYS[5], 0, 0, 'WITHSCORES')
if not newest[2] or now - tonumber(newest[2]) >= tonumber(ARGV[5]) then
  -- NX: that a top was there is told best by the first time it was seen.
  redis.call('ZADD', KEYS[5], 'NX', now, top)
end

local old = string.format('%.0f', now - tonumber(ARGV[3]))
local mark = redis.call('ZREVRANGEBYSCORE', KEYS[5], old, '-inf', 'LIMIT', 0, 1)[1]
if not mark then return {0, 0} end
local cut = math.min(offset_of(mark), offset_of(top) - tonumber(ARGV[4]))

local page = tonumber(ARGV[6])
local entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', page)
local count, last = 0, nil
for _, entry in ipairs(entries) do
  local id, fields = entry[1], entry[2]
  if offset_of(id) > cut then break end
  local topic, key, idem
  for i = 1, #fields, 2 do
    if fields[i] == 'topic' then topic = fields[i + 1]
    elseif fields[i] == 'key' then key = fields[i + 1]
    elseif fields[i] == 'idem' then idem = fields[i + 1] end
  end
  key = key or topic
  if key and redis.call('HGET', KEYS[3], key) == string.match(id, '-(%d+)$') then
    redis.call('HDEL', KEYS[3], key)
  end
  if idem and topic then
    local field = topic .. '\0' .. idem
    local was = redis.call('HGET', KEYS[4], field)
    if was and string.match(was, '^%S+ (%S+)') == id then redis.call('HDEL', KEYS[4], field) end
  end
  count, last = count + 1, id
end
if not last then return {0, 0} end
local epoch, offset = string.match(last, '^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[1], 'MINID', '=', epoch .. '-' .. string.format('%.0f', tonumber(offset) + 1))

-- Only the newest mark at or below what is trimmed still says something.
local score = redis.call('ZSCORE', KEYS[5], mark)
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '(' .. score)

-- An epoch goes once the next one's first entry went: until then a reader at its end misses nothing.
local gone = tonumber(offset)
local firsts = {}
local stored = redis.call('HGETALL', KEYS[2])
for i = 1, #stored, 2 do
  if string.match(stored[i], '^%d+$') then firsts[#firsts + 1] = {stored[i], tonumber(stored[i + 1])} end
end
table.sort(firsts, function(a, b) return tonumber(a[1]) < tonumber(b[1]) end)
for i = 1, #firsts - 1 do
  if firsts[i + 1][2] <= gone then redis.call('HDEL', KEYS[2], firsts[i][1]) end
end
return {count, count == page and 1 or 0}
