#!lua
-- Append entries to one stream, in order, without a gap and without a repeat.
--
-- KEYS[1]  the stream
-- ARGV[1]  the last id that the reader knows to be in it ('0-0' for a new stream)
-- ARGV[2+] items (cdc/append.py writes them); a capital letter marks the last entry of its transaction:
--   t ts tx             the transaction of the items that follow
--   u|U id type key state
--   o|O id type key state origin
--   d|D id type key
--   x|X id n word*n     an entry of any other shape, with all its words (field, value, ...)
--
-- Returns {appended, skipped, last id [, error]}. Nothing is appended behind a gap. Entries up to the stream's last
-- id are skipped: they are there already. At the first error the rest stays out, so what is there is a prefix.
--
-- Ids are compared as text: a Lua number is a double, and ids have more digits than it holds.
local key, argv = KEYS[1], ARGV
local call = redis.pcall

local function last_id()
  local info = call('XINFO', 'STREAM', key)
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
if precedes(last, argv[1]) then
  return {0, 0, last, 'HOLE the stream ends at ' .. last .. ', expected ' .. argv[1]}
end

local at, size, appended, skipped, behind = 2, #argv, 0, 0, false
local ts, tx
while at <= size do
  local code = argv[at]
  if code == 't' then
    ts, tx, at = argv[at + 1], argv[at + 2], at + 3
  else
    local id, reply, after = argv[at + 1], nil, nil
    if code == 'u' or code == 'U' then
      after = at + 5
    elseif code == 'o' or code == 'O' then
      after = at + 6
    elseif code == 'd' or code == 'D' then
      after = at + 4
    else
      after = at + 3 + argv[at + 2]
    end
    behind = behind or precedes(last, id)
    if not behind then
      skipped = skipped + 1
    else
      if code == 'u' then
        reply = call('XADD', key, id, 'op', 'upsert', 'type', argv[at + 2], 'key', argv[at + 3], 'state', argv[at + 4],
                     'ts', ts, 'tx', tx)
      elseif code == 'U' then
        reply = call('XADD', key, id, 'op', 'upsert', 'type', argv[at + 2], 'key', argv[at + 3], 'state', argv[at + 4],
                     'ts', ts, 'tx', tx, 'end', '1')
      elseif code == 'o' then
        reply = call('XADD', key, id, 'op', 'upsert', 'type', argv[at + 2], 'key', argv[at + 3], 'state', argv[at + 4],
                     'ts', ts, 'tx', tx, 'origin', argv[at + 5])
      elseif code == 'O' then
        reply = call('XADD', key, id, 'op', 'upsert', 'type', argv[at + 2], 'key', argv[at + 3], 'state', argv[at + 4],
                     'ts', ts, 'tx', tx, 'origin', argv[at + 5], 'end', '1')
      elseif code == 'd' then
        reply = call('XADD', key, id, 'op', 'delete', 'type', argv[at + 2], 'key', argv[at + 3], 'ts', ts, 'tx', tx)
      elseif code == 'D' then
        reply = call('XADD', key, id, 'op', 'delete', 'type', argv[at + 2], 'key', argv[at + 3], 'ts', ts, 'tx', tx,
                     'end', '1')
      elseif code == 'x' then
        reply = call('XADD', key, id, unpack(argv, at + 3, after - 1))
      else
        local words = {unpack(argv, at + 3, after - 1)}
        words[#words + 1], words[#words + 2] = 'end', '1'
        reply = call('XADD', key, id, unpack(words))
      end
      if type(reply) == 'table' then return {appended, skipped, last, reply.err} end
      last, appended = id, appended + 1
    end
    at = after
  end
end
return {appended, skipped, last}
