#!lua flags=allow-oom
-- Put dead letters back into their lane with a fresh count of attempts. Returns how many there were.
local prompts, dead, lane = KEYS[1], KEYS[2], KEYS[3]
local marker = ARGV[1]
local entry_ids = {unpack(ARGV, 2)}

local redriven = 0
for _, entry_id in ipairs(entry_ids) do
  local entry = redis.call("XRANGE", dead, entry_id, entry_id)[1]
  if entry then
    local fields = {}
    for slot = 1, #entry[2], 2 do
      if string.sub(entry[2][slot], 1, #marker) ~= marker then
        fields[#fields + 1] = entry[2][slot]
        fields[#fields + 1] = entry[2][slot + 1]
      end
    end
    redis.call("XADD", prompts, "*", unpack(fields))
    redis.call("XDEL", dead, entry_id)
    redriven = redriven + 1
  end
end
if redriven > 0 then redis.call("HINCRBY", lane, "requeued", redriven) end
return tostring(redriven)
