#!lua
-- Stores how far a pipeline is published, if Redis still has all that was (cdc/publisher.py). All or nothing.
--
-- Entries are appended first and their position is stored later. Between the two Redis may have lost them and be there
-- again, behind the same address and even the same connection; a position stored then would hide that for ever. What is
-- lost is the end of all that was written, so it is enough to see that nothing is missing of what comes last: the
-- position that was stored before, and the ends of the streams that this one is about.
--
-- KEYS[1]   meta            ARGV[1]  `published` as it was stored before
-- KEYS[2]   snapshot runs   ARGV[2]  `published` as it is to be stored
-- KEYS[3]   parked rows     ARGV[3]  how many runs follow
-- KEYS[4..] streams         ARGV     for each of them its name and its last id, then fields and values of the runs, and
--                                    of the parked rows (no value: it is removed)
local at = 4

local function precedes(a, b)
  local a_lsn, a_ordinal = string.match(a, '^(%d+)-(%d+)$')
  local b_lsn, b_ordinal = string.match(b, '^(%d+)-(%d+)$')
  if a_lsn == b_lsn then a_lsn, b_lsn = a_ordinal, b_ordinal end
  if #a_lsn ~= #b_lsn then return #a_lsn < #b_lsn end
  return a_lsn < b_lsn
end

local function last_id(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err then return string.find(info.err, 'no such key', 1, true) and '0-0', info end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local published = redis.call('HGET', KEYS[1], 'published') or '0/0'
if published ~= ARGV[1] then
  return redis.error_reply('WENTBACK ' .. KEYS[1] .. ' says ' .. published .. ' was published, and ' .. ARGV[1] .. ' was')
end
local fields = {'published', ARGV[2]}
for i = 4, #KEYS do
  local found, failure = last_id(KEYS[i])
  if not found then return failure end
  if precedes(found, ARGV[at + 1]) then
    return redis.error_reply('WENTBACK ' .. KEYS[i] .. ' ends at ' .. found .. ', and ' .. ARGV[at + 1] .. ' was in it')
  end
  fields[#fields + 1], fields[#fields + 2] = 'last:' .. ARGV[at], ARGV[at + 1]
  at = at + 2
end
for i = 1, #fields, 2 do redis.call('HSET', KEYS[1], fields[i], fields[i + 1]) end
local parked = at + 2 * ARGV[3]
for i = at, parked - 1, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
for i = parked, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[3], ARGV[i]) else redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
return redis.status_reply('OK')
