#!lua flags=allow-oom
-- Make a sealed batch what is left of it: entries of its range, `gone` of them, were deleted by somebody else.
-- Returns OK or STALE.
local lane, batch, due, fences, unposted = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local uid, fence, seen_attempt, gone, entries, count, bytes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

local held = redis.call("HMGET", batch, "state", "attempt")
if held[1] ~= "sealed" or held[2] ~= seen_attempt then return "STALE" end
if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
redis.call("HSET", batch, "entries", entries, "count", count, "bytes", bytes, "failures", "0")
redis.call("HINCRBY", lane, "sealed_entries", -gone)
redis.call("ZADD", unposted, count, uid)
local time = redis.call("TIME")
redis.call("ZADD", due, time[1] * 1000 + math.floor(time[2] / 1000), uid)
redis.call("HINCRBY", fences, uid, 1)
return "OK"
