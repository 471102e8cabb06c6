-- Put one prompt into a lane, once per producer's id. Not under allow-oom: a full Redis refuses new prompts.
-- name "" is a prompt without an id; fields are the entry's name, value pairs, id among them. limit_bytes "" is no limit.
-- Returns ENQUEUED and the entry id, DUPLICATE and the first one's entry id, or QFULL.
local prompts, dedupe, waiting = KEYS[1], KEYS[2], KEYS[3]
local lane, name, dedupe_seconds, limit_bytes = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local fields = {unpack(ARGV, 5)}

if name ~= "" then
  local first = redis.call("GET", dedupe)
  if first then return {"DUPLICATE", first} end
end
if limit_bytes ~= "" then
  local used = redis.pcall("MEMORY", "USAGE", prompts)
  local known = redis.call("HMGET", waiting, "total", lane)
  local others = tonumber(known[1] or 0) - tonumber(known[2] or 0)
  if type(used) ~= "number" then used = 0 end
  if used + others >= tonumber(limit_bytes) then return {"QFULL"} end
end
local entry_id = redis.call("XADD", prompts, "*", unpack(fields))
if name ~= "" then redis.call("SET", dedupe, entry_id, "EX", dedupe_seconds) end
return {"ENQUEUED", entry_id}
