#!lua flags=allow-oom
-- Turn the head of a lane into a batch, if the lane's cursor is still where it was seen.
-- recovered_in is the life in which the window was read: it must be the server's present one, and the lane recovered
-- in it; recovery itself says "any".
-- A lane that went and came back has its cursor at the start again: what was seen before that is no longer there.
-- Returns SEALED, MINE (our own earlier call did it), STALE, FULL (too many batches unposted) or RECOVER.
local lane, batch, due, unposted, unusable, prompts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local seen, first, last, uid, entries, count, unusable_count, max_unposted, recovered_in = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local fields = {unpack(ARGV, 10)}

if redis.call("EXISTS", batch) == 1 then return "MINE" end
local info = redis.pcall("INFO", "server")
local run_id = type(info) == "string" and string.match(info, "run_id:(%w+)") or "unknown"
local marks = redis.call("HMGET", lane, "cursor", "incarnation")
if recovered_in ~= "any" and (marks[2] ~= run_id or recovered_in ~= run_id) then return "RECOVER" end
if (marks[1] or "0-0") ~= seen then return "STALE" end
if #redis.call("XRANGE", prompts, first, first) == 0 then return "STALE" end
if redis.call("HLEN", unusable) ~= tonumber(unusable_count) then return "STALE" end
if redis.call("ZCARD", unposted) >= tonumber(max_unposted) then return "FULL" end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("HSET", lane, "cursor", last)
redis.call("HINCRBY", lane, "sealed_entries", entries)
redis.call("HSET", batch, "state", "sealed", "first", first, "last", last, "entries", entries, "count", count,
           "sealed_at", string.format("%d.%06d", time[1], time[2]), unpack(fields))
redis.call("PERSIST", unusable)
redis.call("ZADD", due, now, uid)
redis.call("ZADD", unposted, count, uid)
return "SEALED"
