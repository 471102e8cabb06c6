#!lua flags=allow-oom
-- Count a batch's prompts against the account's queue, once. A lone batch always fits. Returns OK or FULL.
local in_flight = KEYS[1]
local batch, count, limit = ARGV[1], ARGV[2], ARGV[3]

if redis.call("HEXISTS", in_flight, batch) == 1 then return "OK" end
local sum = 0
for _, prompts in ipairs(redis.call("HVALS", in_flight)) do sum = sum + prompts end
if sum > 0 and sum + count > tonumber(limit) then return "FULL" end
redis.call("HSET", in_flight, batch, count)
return "OK"
