#!lua flags=allow-oom
-- Set a string even when Redis is full. milliseconds "" keeps it for ever, else it expires.
-- only_new "yes" leaves one that is there alone. Returns OK or TAKEN.
local key = KEYS[1]
local value, milliseconds, only_new = ARGV[1], ARGV[2], ARGV[3]

if only_new == "yes" and redis.call("EXISTS", key) == 1 then return "TAKEN" end
if milliseconds == "" then
  redis.call("SET", key, value)
else
  redis.call("SET", key, value, "PX", milliseconds)
end
return "OK"
