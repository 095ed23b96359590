#!lua
-- The guard around the XADDs of one transaction of Redis (cdc/publisher.py): nothing is appended behind a gap.
--
-- KEYS[1]  the stream
-- KEYS[2]  where "open" leaves for "close" how the stream was; never there outside of a transaction
-- ARGV[1]  what to do:
--   look         {last id, entries ever added}
--   open KNOWN   shut the stream when it ends before KNOWN, the id that the reader knows to be in it: no XADD that
--                follows does anything. Returns the same as look, of before.
--   close        let a stream that was shut be as it was
--   prove        fail if the rights of the Redis user do not cover what the others may have to do
--
-- A stream is shut by the highest id there is, or where it is gone by an empty string in its place. Open, XADDs and close
-- are one transaction (MULTI, EXEC), which is what makes it safe: nobody sees it shut, and no crash leaves it so.
--
-- Ids are compared as text: a Lua number is a double, and ids have more digits than it holds.
local key, before, HIGHEST = KEYS[1], KEYS[2], '18446744073709551615-18446744073709551615'

local function look()
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err then
    if string.find(info.err, 'no such key', 1, true) then return {last = '0-0', added = 0, gone = true} end
    return nil, info
  end
  local seen = {}
  for i = 1, #info, 2 do seen[info[i]] = info[i + 1] end
  return {last = seen['last-generated-id'], added = seen['entries-added']}
end

local function precedes(a, b)
  local a_lsn, a_ordinal = string.match(a, '^(%d+)-(%d+)$')
  local b_lsn, b_ordinal = string.match(b, '^(%d+)-(%d+)$')
  if a_lsn == b_lsn then a_lsn, b_lsn = a_ordinal, b_ordinal end
  if #a_lsn ~= #b_lsn then return #a_lsn < #b_lsn end
  return a_lsn < b_lsn
end

local function open()
  redis.call('DEL', before)
  local seen, failure = look()
  if failure then return failure end
  if precedes(seen.last, ARGV[2]) then
    redis.call('SET', before, seen.gone and '' or seen.last)
    if seen.gone then redis.call('SET', key, '') else redis.call('XSETID', key, HIGHEST) end
  end
  return {seen.last, seen.added}
end

local function close()
  local last = redis.call('GET', before)
  if not last then return 1 end
  redis.call('DEL', before)
  if last == '' then redis.call('DEL', key) else redis.call('XSETID', key, last) end
  return 1
end

if ARGV[1] == 'prove' then
  for _, command in ipairs({
    {'XSETID', key, HIGHEST}, {'SET', key, ''}, {'DEL', key}, {'SET', before, ''}, {'GET', before}, {'DEL', before},
  }) do
    if not redis.acl_check_cmd(unpack(command)) then
      local name = string.lower(command[1])
      return redis.error_reply("NOPERM this user has no permissions to run the '" .. name .. "' command on " .. command[2])
    end
  end
  return 1
end
if ARGV[1] == 'open' then return open() end
if ARGV[1] == 'close' then return close() end
local seen, failure = look()
return failure or {seen.last, seen.added}
