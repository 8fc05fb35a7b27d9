-- Puts its own functions into the API and looks whether the API uses them.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	for _, t in ipairs { tos, utf8, math } do
		assert(getmetatable(t) == nil, "what fills the tables is at hand")
	end
	local caught
	local function mine(...)
		caught = true
		return ...
	end
	for _, lib in ipairs { string, table, math, coroutine } do
		for name in pairs(lib) do
			pcall(rawset, lib, name, mine)
		end
	end
	for _, name in ipairs { "pairs", "ipairs", "next", "type", "select", "setmetatable", "tostring", "error" } do
		if name ~= "ipairs" then
			_G[name] = mine
		end
	end
	tos.briefcase:folder("STOPPED"):push("refused")
	tos.post("Echo", { 1, 2, { x = 3 } })
	local n = #tos.briefcase:names()
	assert(n == 1 and not caught, "the API calls what a carrier put there")
end
