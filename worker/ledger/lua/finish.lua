#!lua flags=allow-oom
-- Close a delivered batch whose prompts are all settled; its record stays readable for a while.
-- Returns OK, MINE (already closed), STALE, or LEFT: there are entries in its range. A server that forgot its last second
-- has prompts again that were settled in it; what is none of the batch's is left to others (`leaving` is "yes").
local batch, due, fences, unposted, unusable, settled, dead, prompts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local uid, fence, retention_seconds, dead_before, leaving = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local state = redis.call("HGET", batch, "state")
if state == "settled" then return "MINE" end
if state ~= "delivered" then return "STALE" end
if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
local range = redis.call("HMGET", batch, "first", "last")
if leaving ~= "yes" and #redis.call("XRANGE", prompts, range[1], range[2], "COUNT", 1) > 0 then return "LEFT" end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("HSET", batch, "state", "settled", "settled_at", string.format("%d.%06d", time[1], time[2]),
           "seen", "", "ruled_out", "")
redis.call("EXPIRE", batch, retention_seconds)
redis.call("EXPIRE", unusable, retention_seconds)
redis.call("ZREM", due, uid)
redis.call("HDEL", fences, uid)
redis.call("ZREM", unposted, uid)
redis.call("ZADD", settled, now, uid)
redis.call("ZREMRANGEBYSCORE", settled, "-inf", now - retention_seconds * 1000)
redis.call("XTRIM", dead, "MINID", "~", dead_before)
return "OK"
