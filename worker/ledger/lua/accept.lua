#!lua flags=allow-oom
-- Record the fact that the API made a remote batch of this attempt. A fact needs no lease.
-- Returns OK, MINE (already recorded) or STALE.
local batch, due, fences, unposted, remote = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local uid, attempt, remote_id, delay_ms, remote_seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local fields = {unpack(ARGV, 6)}

local held = redis.call("HMGET", batch, "state", "attempt", "remote_id")
if held[3] == remote_id then return "MINE" end
if held[1] ~= "submitting" or held[2] ~= attempt then return "STALE" end
local time = redis.call("TIME")
redis.call("HSET", batch, "state", "in_progress", "remote_id", remote_id, unpack(fields))
redis.call("SET", remote, uid, "EX", remote_seconds)
redis.call("ZREM", unposted, uid)
redis.call("ZADD", due, time[1] * 1000 + math.floor(time[2] / 1000) + delay_ms, uid)
redis.call("HINCRBY", fences, uid, 1)
return "OK"
