#!lua flags=allow-oom
-- Settle some prompts of a delivered batch: delete their entries; a retried one goes back into the lane, a buried one
-- becomes a dead letter. Of the prompts with such a fate, `fated` of them, come four values each: entry id,
-- "retry" | "bury", attempt, reason. The ids of all others follow.
-- known are the names of fields, parted by spaces, that always come along.
-- An entry that is gone was settled before. Returns how many were settled, or STALE.
local prompts, dead, lane, batch, fences = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local uid, fence, buried_at, known, fated = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local outcomes = {unpack(ARGV, 6)}

if redis.call("HGET", batch, "state") ~= "delivered" then return "STALE" end
if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
-- Of names and values that only the producer knows so many come along: unpack fails near 8,000, and a failure here
-- would repeat for ever.
local most = 4000
local is_known = {}
for name in string.gmatch(known, "%S+") do is_known[name] = true end
local gone, requeued = {unpack(outcomes, fated * 4 + 1)}, 0
for at = 1, fated * 4, 4 do
  local entry_id, fate, attempt, reason = outcomes[at], outcomes[at + 1], outcomes[at + 2], outcomes[at + 3]
  gone[#gone + 1] = entry_id
  local entry = redis.call("XRANGE", prompts, entry_id, entry_id)[1]
  if entry then
    local fields, values = {}, {}
    for slot = 1, #entry[2], 2 do
      local name, value = entry[2][slot], entry[2][slot + 1]
      if is_known[name] then
        values[name] = value  -- of a name that stands twice the last counts, for whoever reads an entry
      elseif #fields < most and string.sub(name, 1, 10) ~= "batchmill." then
        fields[#fields + 1] = name
        fields[#fields + 1] = value
      end
    end
    values["id"] = values["id"] or entry_id
    if not values["batchmill.enqueued_at"] then
      local ms = string.match(entry_id, "^%d+")
      values["batchmill.enqueued_at"] = string.sub(ms, 1, -4) .. "." .. string.sub(ms, -3)
    end
    for name in string.gmatch(known, "%S+") do
      if values[name] then
        fields[#fields + 1] = name
        fields[#fields + 1] = values[name]
      end
    end
    fields[#fields + 1] = "batchmill.attempt"
    fields[#fields + 1] = attempt
    if fate == "retry" then
      redis.call("XADD", prompts, "*", unpack(fields))
      requeued = requeued + 1
    else
      redis.call("XADD", dead, "*", "batchmill.reason", reason, "batchmill.buried_at", buried_at,
                 "batchmill.batch", uid, "batchmill.entry_id", entry_id, unpack(fields))
    end
  end
end
local settled = redis.call("XDEL", prompts, unpack(gone))
-- Lua spells minus nothing "-0", which is no integer to Redis
if settled > 0 then redis.call("HINCRBY", lane, "sealed_entries", -settled) end
if requeued > 0 then redis.call("HINCRBY", lane, "requeued", requeued) end
return tostring(settled)
