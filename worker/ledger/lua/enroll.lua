#!lua flags=allow-oom
-- Add names to a set even when Redis is full. Returns OK.
local set = KEYS[1]
local names = {unpack(ARGV, 1)}

redis.call("SADD", set, unpack(names))
return "OK"
