-- Takes the API's objects apart.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	local folder = tos.briefcase:folder("F")
	assert(type(getmetatable(folder)) ~= "table", "a folder's metatable is at hand")
	assert(not pcall(setmetatable, folder, {}))
	assert(not pcall(rawset, folder, "x", 1))
	assert(not pcall(rawget, folder, 1))
	assert(type(getmetatable(tos.briefcase)) ~= "table")
	assert(not pcall(function()
		tos.self().owner = "somebody"
		assert(tos.self().owner ~= "somebody")
		error("held")
	end))
	tos.briefcase:folder("STOPPED"):push("refused")
end
