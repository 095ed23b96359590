#!lua flags=allow-oom
-- A sink that was trimmed past has begun again: take its mark away, unless it has been trimmed past once more.
--
-- KEYS[1]  a hash: `<sink> <stream>` -> the first entry left when the sink was trimmed past
-- ARGV[1]  the field
-- ARGV[2]  what it held when it was seen that the sink has begun again
--
-- Returns how many marks were removed. Two processes may be at this at once: a reader that takes over, and one that only
-- was slow. A mark that is set anew has another value: the sink had read at least up to the one before.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
