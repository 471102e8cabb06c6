#!lua flags=allow-oom
-- Settle some prompts of a delivered batch: delete their entries; a retried one goes back into the lane, a buried one
-- becomes a dead letter. Each outcome is four values: entry id, "" | "retry" | "bury", attempt, reason.
-- An entry that is gone was settled before. Returns how many were settled, or STALE.
local prompts, dead, lane, batch, fences = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local uid, fence, buried_at = ARGV[1], ARGV[2], ARGV[3]
local outcomes = {unpack(ARGV, 4)}

if redis.call("HGET", batch, "state") ~= "delivered" then return "STALE" end
if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
-- Of an entry's names and values so many come along: unpack fails near 8,000, and a failure here would repeat for ever.
local most = 4000
local gone, requeued = {}, 0
for at = 1, #outcomes, 4 do
  local entry_id, fate, attempt, reason = outcomes[at], outcomes[at + 1], outcomes[at + 2], outcomes[at + 3]
  gone[#gone + 1] = entry_id
  if fate ~= "" then
    local entry = redis.call("XRANGE", prompts, entry_id, entry_id)[1]
    if entry then
      local fields, named, dated = {}, false, false
      for slot = 1, math.min(#entry[2], most), 2 do
        local name = entry[2][slot]
        named = named or name == "id"
        dated = dated or name == "batchmill.enqueued_at"
        if name == "batchmill.enqueued_at" or string.sub(name, 1, 10) ~= "batchmill." then
          fields[#fields + 1] = name
          fields[#fields + 1] = entry[2][slot + 1]
        end
      end
      if not named then
        fields[#fields + 1] = "id"
        fields[#fields + 1] = entry_id
      end
      if not dated then
        local ms = string.match(entry_id, "^%d+")
        fields[#fields + 1] = "batchmill.enqueued_at"
        fields[#fields + 1] = string.sub(ms, 1, -4) .. "." .. string.sub(ms, -3)
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
end
local settled = redis.call("XDEL", prompts, unpack(gone))
-- Lua spells minus nothing "-0", which is no integer to Redis
if settled > 0 then redis.call("HINCRBY", lane, "sealed_entries", -settled) end
if requeued > 0 then redis.call("HINCRBY", lane, "requeued", requeued) end
return tostring(settled)
