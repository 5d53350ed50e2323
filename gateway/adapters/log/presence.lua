#!lua flags=allow-oom
-- Who is there, topic by topic: edges say who came and who went, and each call lets go of whose time is over.
-- An entry is topic LF client LF user LF edge. allow-oom: bounded for each topic, and it lets go of more than it adds.
-- KEYS[1] {p}:presence        entries, in the order of their bytes: read, add, remove
-- KEYS[2] {p}:presence:users  topic LF user LF client: count, add, remove
-- KEYS[3] {p}:presence:held   edge LF entry: read, add, remove
-- KEYS[4] {p}:presence:due    'E' edge | 'L' entry -> server ms at which it is over: read, add, remove
-- KEYS[5] {p}:live            append, trim: joins and leaves
-- ARGV[1] edge ('': it only asks), ARGV[2] ms of a lease, ARGV[3] ms for which the lost linger, ARGV[4] most clients
-- of a topic, ARGV[5] entries kept of the live stream, ARGV[6] most that are let go in one call, ARGV[7] a topic to
-- list, or '', then op, topic, client, user each time: 'enter' | 'leave' (it said so) | 'lost' (it may come back)
-- Returns {'1' if the edge was known, entries left, clients that were too many, client, user, ... of the topic}.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local edge = ARGV[1]

local function whole(number) return string.format('%.0f', number) end
local function below(prefix) return '[' .. prefix .. '\n', '(' .. prefix .. '\11' end
local function alone(topic, user)
  -- Nobody in particular is told apart by connection alone.
  return user == '' or redis.call('ZLEXCOUNT', KEYS[2], below(topic .. '\n' .. user)) == 0
end
local function tell(what, topic, client, user)
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[5], '*', 'presence', what, 'topic', topic, 'client', client,
    'user', user)
end
local function remove(entry)
  redis.call('ZREM', KEYS[4], 'L' .. entry)
  if redis.call('ZREM', KEYS[1], entry) == 0 then return end
  local topic, client, user, holder = string.match(entry, '^(.-)\n(.-)\n(.-)\n(.*)$')
  redis.call('ZREM', KEYS[2], topic .. '\n' .. user .. '\n' .. client)
  redis.call('ZREM', KEYS[3], holder .. '\n' .. entry)
  if alone(topic, user) then tell('leave', topic, client, user) end
end

local known = redis.call('ZSCORE', KEYS[4], 'E' .. edge) and '1' or ''
if edge ~= '' then redis.call('ZADD', KEYS[4], whole(now + tonumber(ARGV[2])), 'E' .. edge) end

local refused = 0
for i = 8, #ARGV, 4 do
  local op, topic, client, user = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local entry = topic .. '\n' .. client .. '\n' .. user .. '\n' .. edge
  if op == 'leave' then
    remove(entry)
  elseif op == 'lost' then
    if redis.call('ZSCORE', KEYS[1], entry) then
      redis.call('ZADD', KEYS[4], whole(now + tonumber(ARGV[3])), 'L' .. entry)
    end
  elseif redis.call('ZSCORE', KEYS[1], entry) then
    redis.call('ZREM', KEYS[4], 'L' .. entry)
  elseif redis.call('ZLEXCOUNT', KEYS[1], below(topic)) >= tonumber(ARGV[4]) then
    refused = refused + 1
  else
    if alone(topic, user) then tell('join', topic, client, user) end
    redis.call('ZADD', KEYS[1], 0, entry)
    redis.call('ZADD', KEYS[2], 0, topic .. '\n' .. user .. '\n' .. client)
    redis.call('ZADD', KEYS[3], 0, edge .. '\n' .. entry)
  end
end

-- A clock that was set back must not keep the dead alive: nobody has longer from now than he could have been given.
local most = whole(now + math.max(tonumber(ARGV[2]), tonumber(ARGV[3])))
for _, due in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. most, '+inf', 'LIMIT', 0, ARGV[6])) do
  redis.call('ZADD', KEYS[4], most, due)
end

local room = tonumber(ARGV[6])
for _, due in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', whole(now), 'LIMIT', 0, room)) do
  local name = string.sub(due, 2)
  if string.sub(due, 1, 1) == 'L' then
    remove(name)
    room = room - 1
  else
    local first, last = below(name)
    local held = redis.call('ZRANGEBYLEX', KEYS[3], first, last, 'LIMIT', 0, math.max(room, 0))
    for _, one in ipairs(held) do remove(string.sub(one, #name + 2)) end
    room = room - #held
    if redis.call('ZLEXCOUNT', KEYS[3], first, last) == 0 then redis.call('ZREM', KEYS[4], due) end
  end
end

local answer = {known, redis.call('ZCARD', KEYS[1]), refused}
if ARGV[7] ~= '' then
  local first, last = below(ARGV[7])
  for _, entry in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], first, last)) do
    local _, client, user = string.match(entry, '^(.-)\n(.-)\n(.-)\n')
    answer[#answer + 1] = client
    answer[#answer + 1] = user
  end
end
return answer
