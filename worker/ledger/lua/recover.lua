#!lua flags=allow-oom
-- Declare a lane recovered in the server's present life. Returns OK, or STALE when the server was restarted again.
local lane = KEYS[1]
local incarnation = ARGV[1]
local fields = {unpack(ARGV, 2)}

local info = redis.pcall("INFO", "server")
local run_id = type(info) == "string" and string.match(info, "run_id:(%w+)") or "unknown"
if run_id ~= incarnation then return "STALE" end
redis.call("HSET", lane, "incarnation", incarnation, unpack(fields))
return "OK"
