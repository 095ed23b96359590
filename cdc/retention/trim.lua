#!lua flags=allow-oom
-- Remove entries from the beginning of one stream, and none that a consumer group needs, as groups stand now.
--
-- KEYS[1]  the stream
-- KEYS[2]  a hash: `<sink> <stream>` -> the first entry left when the sink was trimmed past
-- ARGV[1]  the lowest id that may stay as the first one
-- ARGV[2]  the stream's name in the hash
-- ARGV[3]  how many entries to remove at most, in whole nodes of the stream; 0: all there are, exactly
-- ARGV[4+] groups that are not waited for; when they are trimmed past, they find that in the hash
--
-- Returns how many entries were removed. It frees memory, so it must run when there is none left (allow-oom).
-- Ids are compared as text: a Lua number is a double, and ids have more digits than it holds.
local key, keep = KEYS[1], ARGV[1]

local function precedes(a, b)
  local a_lsn, a_ordinal = string.match(a, '^(%d+)-(%d+)$')
  local b_lsn, b_ordinal = string.match(b, '^(%d+)-(%d+)$')
  if a_lsn == b_lsn then a_lsn, b_lsn = a_ordinal, b_ordinal end
  if #a_lsn ~= #b_lsn then return #a_lsn < #b_lsn end
  return a_lsn < b_lsn
end

local exempt = {}
for i = 4, #ARGV do exempt[ARGV[i]] = true end

local passed = {}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local field = {}
  for i = 1, #group, 2 do field[group[i]] = group[i + 1] end
  local position = field['last-delivered-id']
  if field.pending > 0 then
    local first = redis.call('XPENDING', key, field.name)[2]
    if precedes(first, position) then position = first end
  end
  if exempt[field.name] then
    passed[field.name] = position
  elseif precedes(position, keep) then
    keep = position
  end
end

for name, position in pairs(passed) do
  if precedes(position, keep) then redis.call('HSET', KEYS[2], name .. ' ' .. ARGV[2], keep) end
end
if ARGV[3] == '0' then return redis.call('XTRIM', key, 'MINID', keep) end
return redis.call('XTRIM', key, 'MINID', '~', keep, 'LIMIT', ARGV[3])
