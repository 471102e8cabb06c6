#!lua flags=allow-oom
-- Let go of what is too old in a lane, where nothing may ever settle again. With may_go "yes" the lane itself goes as
-- well if nothing is left in it, nobody has stopped or flushed it, and it was recovered in the server's present life.
-- Returns KEPT or GONE.
local lane, prompts, dead, settled, due, fences, unposted = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local retention_ms, dead_before, may_go = ARGV[1], ARGV[2], ARGV[3]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZREMRANGEBYSCORE", settled, "-inf", now - retention_ms)
redis.call("XTRIM", dead, "MINID", dead_before)
if may_go ~= "yes" then return "KEPT" end
local left = redis.call("XLEN", prompts) + redis.call("XLEN", dead) + redis.call("ZCARD", settled) + redis.call("ZCARD", due)
if left > 0 then return "KEPT" end
local marks = redis.call("HMGET", lane, "incarnation", "paused", "parked", "flush_to", "recovering_since")
for mark = 2, 5 do
  if marks[mark] and marks[mark] ~= "" then return "KEPT" end
end
local info = redis.pcall("INFO", "server")
local run_id = type(info) == "string" and string.match(info, "run_id:(%w+)") or "unknown"
if marks[1] ~= run_id then return "KEPT" end
redis.call("DEL", lane, prompts, dead, settled, due, fences, unposted)
return "GONE"
