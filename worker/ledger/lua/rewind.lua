#!lua flags=allow-oom
-- Put a lane's cursor back to the start of its stream, when the whole stream lies behind it and no batch is in it:
-- somebody deleted the stream, and what came since has lower ids. Returns OK or STALE.
local lane, prompts, due = KEYS[1], KEYS[2], KEYS[3]
local seen = ARGV[1]

if redis.call("HGET", lane, "cursor") ~= seen then return "STALE" end
if redis.call("ZCARD", due) > 0 then return "STALE" end
if redis.call("XLEN", prompts) == 0 then return "STALE" end
if #redis.call("XRANGE", prompts, "(" .. seen, "+", "COUNT", 1) > 0 then return "STALE" end
redis.call("HSET", lane, "cursor", "0-0", "sealed_entries", 0)
return "OK"
