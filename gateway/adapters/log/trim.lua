#!lua flags=allow-oom
-- Writes a mark when one is due and trims one page by the marks. allow-oom: trimming is what makes room.
-- KEYS[1] {p}          trim
-- KEYS[2] {p}:epochs   forget epochs that are trimmed whole
-- KEYS[3] {p}:heads    forget heads whose entry goes
-- KEYS[4] {p}:idem     forget idempotency keys whose entry goes
-- KEYS[5] {p}:marks    server time (ms) -> top: read, write, forget
-- KEYS[6] {p}:trimmer  the lease: token of who trims
-- KEYS[7] {p}:groups   the groups to be asked
-- KEYS[8] {p}:dead     letters of what a group did not finish in time: append
-- KEYS[9..] of each group three: {p}:group:<g> (read, write cursor, claimed, oldest), its :parked and :crashes (forget)
-- ARGV[1] token, ARGV[2] lease ms, ARGV[3] retention ms, ARGV[4] events kept whatever their age,
-- ARGV[5] ms between marks, ARGV[6] entries of a page, ARGV[7] entries that may wait for a group, ARGV[8] dead letters
-- kept, ARGV[9..] names of the groups
-- Returns {entries trimmed, 1 if more are due else 0, letters}; {-1, 0, 0} where another holds the lease; {-2, 0, 0}
--   where the groups are others.
local holder = redis.call('GET', KEYS[6])
if holder and holder ~= ARGV[1] then return {-1, 0, 0} end
if redis.call('SCARD', KEYS[7]) ~= #ARGV - 8 then return {-2, 0, 0} end
for i = 9, #ARGV do
  if redis.call('SISMEMBER', KEYS[7], ARGV[i]) == 0 then return {-2, 0, 0} end
end
-- The lease only saves double work: each page is atomic, and trimming it twice changes nothing.
redis.call('SET', KEYS[6], ARGV[1], 'PX', ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0, 0} end

local function offset_of(id) return tonumber(string.match(id, '-(%d+)$')) end
local top
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then top = info[i + 1] end
end
local current = redis.call('HGET', KEYS[2], 'current') or '0'
-- Another program's entry above ours is no top: its offset would stand for all that are to come.
if offset_of(top) >= 4503599627370496 or tonumber(string.match(top, '^%d+')) > tonumber(current) then
  local newest = redis.call('XREVRANGE', KEYS[1], current .. '-4503599627370495', '-', 'COUNT', 1)[1]
  top = newest and newest[1] or current .. '-0'
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
if not mark then return {0, 0, 0} end
local cut = math.min(offset_of(mark), offset_of(top) - tonumber(ARGV[4]))

-- Never past what a group has not finished, as far as the bound on it goes. An `oldest` that a holder settles later may
-- be lower than what is gone: then there is nothing to keep for it.
local groups, oldest = {}, math.huge
for i = 9, #ARGV do
  local key = 9 + (i - 9) * 3
  local state = redis.call('HMGET', KEYS[key], 'cursor', 'oldest')
  if state[1] then
    local group = {name = ARGV[i], key = key, cursor = tonumber(state[1]), oldest = tonumber(state[2])}
    groups[#groups + 1] = group
    oldest = math.min(oldest, group.oldest)
  end
end
local free = math.max(oldest - 1, offset_of(top) - tonumber(ARGV[7]))
local held = free < cut
cut = math.min(cut, free)
local stamp, letters = string.format('%.0f', now), 0

-- Before an entry goes: a letter for each group that has not finished it.
local function overtake(id, offset, fields)
  for _, group in ipairs(groups) do
    if offset >= group.oldest then
      local field = string.format('%.0f', offset)
      local parked = redis.call('HGET', KEYS[group.key + 1], field)
      if parked or offset > group.cursor then
        redis.call('HDEL', KEYS[group.key + 1], field)
        redis.call('HDEL', KEYS[group.key + 2], field)
        redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[8], '*', 'reason', 'retention',
          'error', 'more than ' .. ARGV[7] .. ' newer entries came before it was finished',
          'topic', fields.topic, 'data', fields.data or '', 'meta', fields.meta or '\128', 'producer', '', 'ts', stamp,
          'group', group.name, 'attempts', parked and string.match(parked, '^%d+ (%d+)') or '0', 'worker', '',
          'traceback', '', 'id', fields.id or '', 'at', id, 'key', fields.key or '')
        letters = letters + 1
      end
    end
  end
end

local page = tonumber(ARGV[6])
local entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', page)
local count, last = 0, nil
for _, entry in ipairs(entries) do
  local id, fields = entry[1], entry[2]
  if offset_of(id) > cut then break end
  local named = {}
  for i = 1, #fields, 2 do named[fields[i]] = fields[i + 1] end
  local topic, idem = named.topic, named.idem
  local key = named.key or topic
  if topic and offset_of(id) >= oldest then overtake(id, offset_of(id), named) end
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
if not last then return {0, 0, 0} end
local epoch, offset = string.match(last, '^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[1], 'MINID', '=', epoch .. '-' .. string.format('%.0f', tonumber(offset) + 1))

for _, group in ipairs(groups) do
  local gone = tonumber(offset)
  if group.oldest <= gone then
    local cursor = math.max(group.cursor, gone)
    local after = cursor + 1
    for _, parked in ipairs(redis.call('HKEYS', KEYS[group.key + 1])) do after = math.min(after, tonumber(parked)) end
    local claimed = math.max(cursor, tonumber(redis.call('HGET', KEYS[group.key], 'claimed')))
    redis.call('HSET', KEYS[group.key], 'cursor', string.format('%.0f', cursor),
      'claimed', string.format('%.0f', claimed), 'oldest', string.format('%.0f', after))
  end
end

-- Only the newest mark at or below what is trimmed still says something.
if not held then
  local score = redis.call('ZSCORE', KEYS[5], mark)
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '(' .. score)
end

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
return {count, count == page and 1 or 0, letters}
