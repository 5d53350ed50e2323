#!lua
-- Gives dead letters back to their group, each as a parked copy that is due at once; the letter goes in the same call.
-- KEYS[1] {p}:dead              read, delete
-- KEYS[2] {p}:group:<g>         count `replayed`
-- KEYS[3] {p}:group:<g>:parked  number -> parked event: write
-- KEYS[4] {p}:group:<g>:replays number -> "at #topic #id #meta LF topic id meta data": write
-- ARGV[1] group, ARGV[2] bound on parked, then of each letter three: id, '1' edited | '0', new data
-- Returns of each letter: its number, 'missing', 'other' (not of this group) or 'full'.
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local known = redis.call('HEXISTS', KEYS[2], 'cursor') == 1
local answers = {}
for i = 3, #ARGV, 3 do
  local answer
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  local fields = {}
  if entry then
    for f = 1, #entry[2], 2 do fields[entry[2][f]] = entry[2][f + 1] end
  end
  if not entry then answer = 'missing'
  elseif not known or fields.group ~= ARGV[1] then answer = 'other'
  elseif redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[2]) then answer = 'full'
  else
    answer = string.format('%.0f', redis.call('HINCRBY', KEYS[2], 'replayed', 1))
    local topic, id, meta = fields.topic or '', fields.id or '', fields.meta or '\128'
    local key, at = fields.key or '', fields.at or ''
    if key == '' then key = topic end
    if not string.match(at, '^%d+-%d+$') then at = '0-0' end
    local data = ARGV[i + 1] == '1' and ARGV[i + 2] or fields.data or ''
    redis.call('HSET', KEYS[4], answer,
      at .. ' ' .. #topic .. ' ' .. #id .. ' ' .. #meta .. '\n' .. topic .. id .. meta .. data)
    redis.call('HSET', KEYS[3], answer, string.match(at, '^%d+') .. ' 0 0 ' .. now .. ' ' .. #key .. '\n' .. key)
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
  answers[#answers + 1] = answer
end
return answers
