#!lua flags=allow-oom
-- The intent to post: sealed becomes submitting, one attempt more. What the API showed as its
-- newest batch is kept as head, and when it was created, by the API, as head_at. `intent` names this very intent,
-- `deployment` whose custom_ids it posts, `ruled_out` (ids between blanks) what was there before it.
-- Returns OK, STALE, PAUSED or RECOVER.
local lane, batch, fences = KEYS[1], KEYS[2], KEYS[3]
local uid, fence, seen_attempt, head, head_at, intent, deployment, ruled_out = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local info = redis.pcall("INFO", "server")
local run_id = type(info) == "string" and string.match(info, "run_id:(%w+)") or "unknown"
local marks = redis.call("HMGET", lane, "incarnation", "paused")
if marks[1] ~= run_id then return "RECOVER" end
if marks[2] and marks[2] ~= "" then return "PAUSED" end
local held = redis.call("HMGET", batch, "state", "attempt")
if held[1] ~= "sealed" or held[2] ~= seen_attempt then return "STALE" end
if redis.call("HGET", fences, uid) ~= fence then return "STALE" end
local time = redis.call("TIME")
redis.call("HSET", batch, "state", "submitting", "attempt", seen_attempt + 1, "head", head, "head_at", head_at,
           "intent", intent, "deployment", deployment,
           "posted_at", string.format("%d.%06d", time[1], time[2]),
           "doubt", "", "doubt_at", "", "seen", "", "ruled_out", ruled_out, "closed", "")
return "OK"
