#!lua flags=allow-oom
-- Cut a sealed batch in two: it keeps the head of its range, the new batch gets the rest and everything else it has.
-- head_fields and tail_fields are name, value pairs, `pairs` of each. Returns OK or STALE.
local batch, tail_batch, due, fences, unposted, unusable, tail_unusable = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local uid, fence, seen_attempt, tail_uid, head_count, tail_count, delay_ms, pairs_each = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local both = {unpack(ARGV, 9)}

local held = redis.call("HMGET", batch, "state", "attempt")
if held[1] ~= "sealed" or held[2] ~= seen_attempt then return "STALE" end
if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
for _, cut in ipairs({{batch, 0}, {tail_batch, 2 * pairs_each}}) do
  if cut[1] == tail_batch then redis.call("HSET", tail_batch, unpack(redis.call("HGETALL", batch))) end
  for at = cut[2] + 1, cut[2] + 2 * pairs_each, 2 do redis.call("HSET", cut[1], both[at], both[at + 1]) end
end
local flaws = redis.call("HGETALL", unusable)
for at = 1, #flaws, 2 do redis.call("HSET", tail_unusable, flaws[at], flaws[at + 1]) end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZADD", due, now, uid, now + delay_ms, tail_uid)
redis.call("ZADD", unposted, head_count, uid, tail_count, tail_uid)
redis.call("HINCRBY", fences, uid, 1)
return "OK"
