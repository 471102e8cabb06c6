#!lua flags=allow-oom
-- Claim batches that are due: each gets a new fence and comes due again when the lease is over. A fence is no smaller
-- than the time: a server that forgot which it gave out gives none of them out again.
-- A state in `passed_over` (words between blanks) comes due again as well, but its batches keep their fences.
-- Returns uid, fence, state of each, flat.
local due, fences = KEYS[1], KEYS[2]
local batch_prefix, limit, lease_ms, passed_over = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local claimed = {}
for _, uid in ipairs(redis.call("ZRANGEBYSCORE", due, "-inf", now, "LIMIT", 0, limit)) do
  local state = redis.call("HGET", batch_prefix .. uid, "state")
  if state then
    redis.call("ZADD", due, "XX", now + lease_ms, uid)
    if not string.find(passed_over, " " .. state .. " ", 1, true) then
      claimed[#claimed + 1] = uid
      local fence = redis.call("HINCRBY", fences, uid, 1)
      if fence < now then fence = redis.call("HINCRBY", fences, uid, string.format("%.0f", now - fence)) end
      claimed[#claimed + 1] = string.format("%.0f", fence)
      claimed[#claimed + 1] = state
    end
  else
    redis.call("ZREM", due, uid)
    redis.call("HDEL", fences, uid)
  end
end
return claimed
