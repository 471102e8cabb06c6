#!lua flags=allow-oom
-- Make a lease last longer. Returns OK, or STALE when somebody else has claimed the batch since.
local due, fences = KEYS[1], KEYS[2]
local uid, fence, lease_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
local time = redis.call("TIME")
redis.call("ZADD", due, "XX", time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms, uid)
return "OK"
