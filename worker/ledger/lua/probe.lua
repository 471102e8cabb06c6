#!lua flags=allow-oom
-- Ask for the one probe that a parked lane is granted per period. Returns OK, WAIT or OPEN (the lane is not parked).
local lane = KEYS[1]
local period_ms = ARGV[1]

local marks = redis.call("HMGET", lane, "parked", "probe_at")
if not marks[1] or marks[1] == "" then return "OPEN" end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(marks[2] or 0) > now then return "WAIT" end
redis.call("HSET", lane, "probe_at", now + period_ms)
return "OK"
