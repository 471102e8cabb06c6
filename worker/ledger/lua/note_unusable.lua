#!lua flags=allow-oom
-- Note entries of a batch that is about to be sealed and cannot be used: entry id, flaw, entry id, flaw…
-- The note expires by itself unless the seal keeps it. Returns OK.
local unusable = KEYS[1]
local seconds = ARGV[1]
local flaws = {unpack(ARGV, 2)}

redis.call("HSET", unusable, unpack(flaws))
redis.call("EXPIRE", unusable, seconds)
return "OK"
