#!lua flags=allow-oom
-- Take one prompt out of a sealed batch's body: it stays in the range as unusable. Returns OK or STALE.
local batch, due, fences, unposted, unusable = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local uid, fence, seen_attempt, entry_id, flaw, count, bytes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

local held = redis.call("HMGET", batch, "state", "attempt")
if held[1] ~= "sealed" or held[2] ~= seen_attempt then return "STALE" end
if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
redis.call("HSET", unusable, entry_id, flaw)
redis.call("HSET", batch, "count", count, "bytes", bytes)
redis.call("ZADD", unposted, count, uid)
local time = redis.call("TIME")
redis.call("ZADD", due, time[1] * 1000 + math.floor(time[2] / 1000), uid)
redis.call("HINCRBY", fences, uid, 1)
return "OK"
