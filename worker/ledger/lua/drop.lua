#!lua flags=allow-oom
-- Delete a string if it is still what it was. Returns OK or STALE.
local key = KEYS[1]
local value = ARGV[1]

if redis.call("GET", key) ~= value then return "STALE" end
redis.call("DEL", key)
return "OK"
