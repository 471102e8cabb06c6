#!lua flags=allow-oom
-- Move a batch from the state and attempt in which it was seen to the next, and say when to look again.
-- fence "" records a fact, anything else must be the fence of the claim. recovered "yes" asks for the incarnation too.
-- delay_ms "" leaves the next look as it is and the claim in force, "never" is for a human to end.
-- unposted_as "" leaves the reservation, "no" ends it, a count makes it.
-- remote is the owner's key of a remote batch, which becomes this batch's for remote_seconds; "" leaves it alone.
-- Returns OK, STALE or RECOVER.
local lane, batch, due, fences, unposted, remote = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local uid, fence, seen_state, seen_attempt, recovered, state, delay_ms, unposted_as, remote_seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local fields = {unpack(ARGV, 10)}

if recovered == "yes" then
  local info = redis.pcall("INFO", "server")
  local run_id = type(info) == "string" and string.match(info, "run_id:(%w+)") or "unknown"
  if redis.call("HGET", lane, "incarnation") ~= run_id then return "RECOVER" end
end
local held = redis.call("HMGET", batch, "state", "attempt")
if held[1] ~= seen_state or held[2] ~= seen_attempt then return "STALE" end
if fence ~= "" and redis.call("HGET", fences, uid) ~= fence then return "STALE" end
redis.call("HSET", batch, "state", state, unpack(fields))
if remote_seconds ~= "" then redis.call("SET", remote, uid, "EX", remote_seconds) end
if unposted_as == "no" then
  redis.call("ZREM", unposted, uid)
elseif unposted_as ~= "" then
  redis.call("ZADD", unposted, unposted_as, uid)
end
if delay_ms == "never" then
  redis.call("ZADD", due, "+inf", uid)
elseif delay_ms ~= "" then
  local time = redis.call("TIME")
  redis.call("ZADD", due, time[1] * 1000 + math.floor(time[2] / 1000) + delay_ms, uid)
end
if delay_ms ~= "" then redis.call("HINCRBY", fences, uid, 1) end
return "OK"
