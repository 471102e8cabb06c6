#!lua flags=allow-oom
-- Forget a flush of a lane, if it is still the one that was seen. Returns OK or STALE.
local lane = KEYS[1]
local flush_to = ARGV[1]

if redis.call("HGET", lane, "flush_to") ~= flush_to then return "STALE" end
redis.call("HDEL", lane, "flush_to")
return "OK"
