#!lua flags=allow-oom
-- Look at a lane: at its record, and whether it has an entry behind last. The entry stays here, whatever it weighs.
-- Returns the time in seconds, how many batches are unposted, 1 or 0, then the record's fields.
local lane, unposted, prompts = KEYS[1], KEYS[2], KEYS[3]
local last = ARGV[1]

local time = redis.call("TIME")
local more = #redis.call("XRANGE", prompts, "(" .. last, "+", "COUNT", 1)
local marks = redis.call("HMGET", lane, "cursor", "incarnation", "paused", "parked", "flush_to")
return {string.format("%d.%06d", time[1], time[2]), redis.call("ZCARD", unposted), more, unpack(marks)}
