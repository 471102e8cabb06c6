#!lua flags=allow-oom
-- Take a remote batch for the one this attempt made. With a count given, only while no other unposted batch of any
-- lane has that count, and every lane is recovered: a forgotten batch is in no lane's set. `remotes` holds this remote
-- batch's owner key in each lane, this lane's first; each lane's `unposted` and record follow in the same order.
-- Returns OK, STALE, SHARED (another batch has the count), OWNED (another batch has the remote one) or RECOVER.
local lane, batch, due, fences, unposted = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local lanes, uid, fence, seen_attempt, remote_id, count, remote_seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local others = {unpack(KEYS, 6)}
local fields = {unpack(ARGV, 8)}

local info = redis.pcall("INFO", "server")
local run_id = type(info) == "string" and string.match(info, "run_id:(%w+)") or "unknown"
if redis.call("HGET", lane, "incarnation") ~= run_id then return "RECOVER" end
local held = redis.call("HMGET", batch, "state", "attempt")
if held[1] ~= "submitting" or held[2] ~= seen_attempt then return "STALE" end
if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
for position = 1, lanes do
  local owner = redis.call("GET", others[position])
  if owner and owner ~= uid then return "OWNED" end
end
if count ~= "" then
  local holders = 0
  for position = lanes + 1, 2 * lanes do
    holders = holders + redis.call("ZCOUNT", others[position], count, count)
    if redis.call("HGET", others[position + lanes], "incarnation") ~= run_id then return "RECOVER" end
  end
  if holders ~= 1 then return "SHARED" end
end
local time = redis.call("TIME")
redis.call("HSET", batch, "state", "in_progress", "remote_id", remote_id, unpack(fields))
redis.call("SET", others[1], uid, "EX", remote_seconds)
redis.call("ZREM", unposted, uid)
redis.call("ZADD", due, time[1] * 1000 + math.floor(time[2] / 1000), uid)
redis.call("HINCRBY", fences, uid, 1)
return "OK"
