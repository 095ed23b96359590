#!lua
-- Append entries to one stream, in order, without a gap and without a repeat.
--
-- KEYS[1]  the stream
-- ARGV[1]  the last id that the reader knows to be in it ('0-0' for a new stream)
-- ARGV[2+] for each entry: its id, the number of its words, its words (field, value, ...)
--
-- Returns {appended, skipped, last id [, error]}. Nothing is appended behind a gap. Entries up to the stream's last
-- id are skipped: they are there already. At the first error the rest stays out, so what is there is a prefix.
--
-- Ids are compared as text: a Lua number is a double, and ids have more digits than it holds.
local key = KEYS[1]

local function last_id()
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err then
    if string.find(info.err, 'no such key', 1, true) then return '0-0' end
    return nil, info
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local function precedes(a, b)
  local a_lsn, a_ordinal = string.match(a, '^(%d+)-(%d+)$')
  local b_lsn, b_ordinal = string.match(b, '^(%d+)-(%d+)$')
  if a_lsn == b_lsn then a_lsn, b_lsn = a_ordinal, b_ordinal end
  if #a_lsn ~= #b_lsn then return #a_lsn < #b_lsn end
  return a_lsn < b_lsn
end

local last, failure = last_id()
if failure then return failure end
if precedes(last, ARGV[1]) then
  return {0, 0, last, 'HOLE the stream ends at ' .. last .. ', expected ' .. ARGV[1]}
end

local at, appended, skipped = 2, 0, 0
while at <= #ARGV and not precedes(last, ARGV[at]) do
  skipped, at = skipped + 1, at + 2 + ARGV[at + 1]
end
while at <= #ARGV do
  local behind = at + 2 + ARGV[at + 1]
  local reply = redis.pcall('XADD', key, ARGV[at], unpack(ARGV, at + 2, behind - 1))
  if type(reply) == 'table' then return {appended, skipped, last, reply.err} end
  last, appended, at = ARGV[at], appended + 1, behind
end
return {appended, skipped, last}
