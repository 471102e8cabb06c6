#!lua flags=allow-oom
-- Read the fields of entries that are asked for by name, parted by spaces, if they are no longer than longest.
-- Returns a list for each entry id, false if it is gone.
local prompts = KEYS[1]
local wanted, longest = ARGV[1], ARGV[2]
local entry_ids = {unpack(ARGV, 3)}

local is_wanted = {}
for name in string.gmatch(wanted, "%S+") do is_wanted[name] = true end
local described = {}
for at, entry_id in ipairs(entry_ids) do
  local entry = redis.call("XRANGE", prompts, entry_id, entry_id)[1]
  local fields = false
  if entry then
    local values = {}
    for slot = 1, #entry[2], 2 do
      -- of a name that stands twice the last counts, for whoever reads an entry
      if is_wanted[entry[2][slot]] then values[entry[2][slot]] = entry[2][slot + 1] end
    end
    fields = {}
    for name in string.gmatch(wanted, "%S+") do
      if values[name] and #values[name] <= tonumber(longest) then
        fields[#fields + 1] = name
        fields[#fields + 1] = values[name]
      end
    end
  end
  described[at] = fields
end
return described
