#!lua flags=no-writes
-- The events of one key after a position, newest first, by the chain of `prev` from the key's head.
-- KEYS[1] {p}          read
-- KEYS[2] {p}:epochs   read
-- KEYS[3] {p}:heads    read
-- ARGV[1] key, ARGV[2] epoch and ARGV[3] offset of the position (epoch 0: no claim), ARGV[4] events, ARGV[5] bytes
-- Returns {top, reason, entries}; reason '' says that nothing is missing, else: epoch, trimmed, too_many, corrupt.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'0-0', ARGV[2] == '0' and '' or 'epoch', {}}
end
local after = tonumber(ARGV[3])

local top, first
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then top = info[i + 1] end
  if info[i] == 'first-entry' and info[i + 1] then first = info[i + 1][1] end
end
local function offset_of(id) return tonumber(string.match(id, '-(%d+)$')) end
local epochs = {}
local stored = redis.call('HGETALL', KEYS[2])
for i = 1, #stored, 2 do
  if string.match(stored[i], '^%d+$') then
    epochs[#epochs + 1] = {name = stored[i], number = tonumber(stored[i]), first = tonumber(stored[i + 1])}
  end
end
table.sort(epochs, function(a, b) return a.number > b.number end)
-- Another program's entry above ours is no top: no reader ever gets there.
if epochs[1] and (offset_of(top) >= 4503599627370496 or tonumber(string.match(top, '^%d+')) > epochs[1].number) then
  local newest = redis.call('XREVRANGE', KEYS[1], epochs[1].name .. '-4503599627370495', '-', 'COUNT', 1)[1]
  top = newest and newest[1] or epochs[1].name .. '-0'
end
local trimmed = first and math.min(offset_of(first) - 1, offset_of(top)) or offset_of(top)

if ARGV[2] ~= '0' then
  local known, following = false, math.huge
  for _, epoch in ipairs(epochs) do
    if epoch.name == ARGV[2] then known = true break end
    following = math.min(following, epoch.first)
  end
  if not known or after >= following or after > offset_of(top) then return {top, 'epoch', {}} end
end

local function id_of(offset)
  for _, epoch in ipairs(epochs) do
    if epoch.first <= offset then return epoch.name .. '-' .. string.format('%.0f', offset) end
  end
end

local head = redis.call('HGET', KEYS[3], ARGV[1])
if not head then
  -- The head goes with its entry, so without one all that can be missing is what was trimmed.
  return {top, after >= trimmed and '' or 'trimmed', {}}
end
local entries, bytes, reason = {}, 0, ''
local at = tonumber(head)
while at > after do
  if at <= trimmed then reason = 'trimmed' break end
  if #entries >= tonumber(ARGV[4]) or bytes >= tonumber(ARGV[5]) then reason = 'too_many' break end
  local id = id_of(at)
  local entry = id and redis.call('XRANGE', KEYS[1], id, id)[1]
  if not entry then reason = 'corrupt' break end
  local topic, key, prev
  for i = 1, #entry[2], 2 do
    local name, value = entry[2][i], entry[2][i + 1]
    if name == 'topic' then topic = value elseif name == 'key' then key = value
    elseif name == 'prev' then prev = tonumber(value) end
    bytes = bytes + #value
  end
  if (key or topic) ~= ARGV[1] or not prev or prev >= at then reason = 'corrupt' break end
  entries[#entries + 1] = entry
  -- A chain that begins after a trim may have had an older part: nobody can tell.
  if prev == 0 and after < trimmed then reason = 'trimmed' end
  at = prev
end
return {top, reason, entries}
