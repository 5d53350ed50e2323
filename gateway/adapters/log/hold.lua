#!lua flags=allow-oom
-- What a holder does with its lease beside settling: renew it, release it, count a crash before it is risked.
-- KEYS[1] {p}:epochs            read `replid` and `current`
-- KEYS[2] {p}:group:<g>         compare lease and epoch; write until, or lease, holder, claimed
-- KEYS[3] {p}:group:<g>:crashes offset -> workers that died over it: count
-- ARGV[1] token, ARGV[2] 'renew' | 'release' | 'suspect', ARGV[3] offset of the suspect
-- Returns 'FENCED' (nothing was done), or {'1' if paused, highest replay number, crashes of the suspect | 0}.
local known = redis.call('HMGET', KEYS[1], 'replid', 'current')
local group = redis.call('HMGET', KEYS[2], 'lease', 'epoch', 'ttl', 'paused', 'replayed', 'cursor')
if group[1] ~= ARGV[1] or group[2] ~= known[2]
  or known[1] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') then
  return 'FENCED'
end
local crashes = 0
if ARGV[2] == 'release' then
  redis.call('HSET', KEYS[2], 'lease', '', 'holder', '', 'until', '0', 'claimed', group[6])
else
  local clock = redis.call('TIME')
  local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  redis.call('HSET', KEYS[2], 'until', string.format('%.0f', now + tonumber(group[3])))
  if ARGV[2] == 'suspect' then crashes = redis.call('HINCRBY', KEYS[3], ARGV[3], 1) end
end
return {group[4] or '', group[5], crashes}
