-- Would change what every string does.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	local meta = getmetatable("")
	assert(type(meta) ~= "table" or not pcall(function()
		meta.__index = function()
			return "mine"
		end
		assert(("x").anything ~= "mine")
	end) or true)
	assert(type(meta) ~= "table", "the metatable of strings is at hand")
	assert(not pcall(setmetatable, "", {}))
	tos.briefcase:folder("STOPPED"):push("refused")
end
