#!lua flags=allow-oom
-- Set fields of a hash even when Redis is full: name, value, name, value… An empty value deletes the field.
-- With a field named in `unless`, only while that field is empty. Returns OK or STALE.
local hash = KEYS[1]
local unless = ARGV[1]
local fields = {unpack(ARGV, 2)}

if unless ~= "" and (redis.call("HGET", hash, unless) or "") ~= "" then return "STALE" end
for at = 1, #fields, 2 do
  if fields[at + 1] == "" then
    redis.call("HDEL", hash, fields[at])
  else
    redis.call("HSET", hash, fields[at], fields[at + 1])
  end
end
return "OK"
