#!lua flags=allow-oom
-- Read entries without their params and other bulk. Returns a list for each entry id, false if it is gone.
local prompts = KEYS[1]
local longest = ARGV[1]
local entry_ids = {unpack(ARGV, 2)}

local described = {}
for at, entry_id in ipairs(entry_ids) do
  local entry = redis.call("XRANGE", prompts, entry_id, entry_id)[1]
  local fields = false
  if entry then
    fields = {}
    for slot = 1, #entry[2], 2 do
      if entry[2][slot] ~= "params" and #entry[2][slot + 1] <= tonumber(longest) then
        fields[#fields + 1] = entry[2][slot]
        fields[#fields + 1] = entry[2][slot + 1]
      end
    end
  end
  described[at] = fields
end
return described
