#!lua
-- Appends a batch in order, or nothing. No `allow-oom`: under OOM the server refuses the script before its first line.
-- KEYS[1] {p}          the log: append
-- KEYS[2] {p}:epochs   read `replid` and `current`
-- KEYS[3] {p}:heads    key -> offset of its newest event: read, write
-- KEYS[4] {p}:last     topic -> last value: read, write
-- KEYS[5] {p}:idem     topic NUL idempotency -> "hash position id": read, write
-- KEYS[6] {p}:fence:<name>  of a bridge: read; absent for others
-- ARGV[1] bound on topics in :last, ARGV[2] term of the bridge | ''; then of each event eight:
--   topic, id, data, meta, key ('' = topic), 'r' retained | 'R' retained and replayed | '', idempotency, body hash
-- Returns 'STALE' (open an epoch, send again), 'FENCED' (a bridge that was replaced: nothing is done), or {epoch, answer of each event}:
--   offset | {'duplicate', position, id} | {'reused'} | {'full'}
local known = redis.call('HMGET', KEYS[2], 'replid', 'current')
if known[1] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') then
  return 'STALE'
end
if ARGV[2] ~= '' and redis.call('GET', KEYS[6]) ~= ARGV[2] then return 'FENCED' end
local epoch = known[2]
local auto, cut = epoch .. '-*', #epoch + 2
local heads, answers = {}, {epoch}

local function before(topic, data, retain, field, hash)
  if field then
    local was = redis.call('HGET', KEYS[5], field)
    if was then
      local then_, at, id = string.match(was, '^(%S+) (%S+) (.*)$')
      if then_ ~= hash then return {'reused'} end
      return {'duplicate', at, id}
    end
  end
  if retain == 'R' then
    local was = redis.call('HGET', KEYS[4], topic)
    if was then
      local line, at, id, meta = string.match(was, '^((%S+) (%d+) (%d+)\n)')
      local from = #line + id + meta
      if string.sub(was, from + 1) == data then return {'duplicate', at, string.sub(was, #line + 1, #line + id)} end
    end
  end
  if retain ~= '' and data ~= '' and redis.call('HLEN', KEYS[4]) >= tonumber(ARGV[1])
    and redis.call('HEXISTS', KEYS[4], topic) == 0 then
    return {'full'}
  end
  return nil
end

for i = 3, #ARGV, 8 do
  local topic, id, data, meta, retain, idem = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 5], ARGV[i + 6]
  local field = idem ~= '' and topic .. '\0' .. idem
  local answer = (field or retain ~= '') and before(topic, data, retain, field, ARGV[i + 7])
  if not answer then
    local key = ARGV[i + 4]
    if key == '' then key = topic end
    local prev = heads[key] or redis.call('HGET', KEYS[3], key) or '0'
    local at
    if key == topic and not field then
      at = redis.call('XADD', KEYS[1], 'NOMKSTREAM', auto,
        'topic', topic, 'id', id, 'data', data, 'prev', prev, 'meta', meta)
    else
      local entry = {'topic', topic, 'id', id, 'data', data, 'prev', prev, 'meta', meta}
      if key ~= topic then entry[#entry + 1] = 'key'; entry[#entry + 1] = key end
      if field then entry[#entry + 1] = 'idem'; entry[#entry + 1] = idem end
      at = redis.call('XADD', KEYS[1], 'NOMKSTREAM', auto, unpack(entry))
    end
    if not at then return 'STALE' end -- the log was deleted; only the first event of a batch can find that
    local offset = string.sub(at, cut)
    if #offset > 15 and tonumber(offset) >= 4503599627370496 then
      -- Above another program's entry, where no reader looks and replays have their numbers.
      redis.call('XDEL', KEYS[1], at)
      return redis.error_reply('ERR equal or smaller than the target stream top item')
    end
    heads[key] = offset
    if field then redis.call('HSET', KEYS[5], field, ARGV[i + 7] .. ' ' .. at .. ' ' .. id) end
    if retain ~= '' then
      if data == '' then
        redis.call('HDEL', KEYS[4], topic)
      else
        redis.call('HSET', KEYS[4], topic, at .. ' ' .. #id .. ' ' .. #meta .. '\n' .. id .. meta .. data)
      end
    end
    answer = tonumber(offset)
  end
  answers[#answers + 1] = answer
end

local pairs_ = {}
for key, offset in pairs(heads) do
  pairs_[#pairs_ + 1] = key
  pairs_[#pairs_ + 1] = offset
  if #pairs_ == 1000 then -- unpack has the C stack for a few thousand
    redis.call('HSET', KEYS[3], unpack(pairs_))
    pairs_ = {}
  end
end
if #pairs_ > 0 then redis.call('HSET', KEYS[3], unpack(pairs_)) end
return answers
