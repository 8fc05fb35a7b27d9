-- Would run code when nobody looks.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	assert(not pcall(setmetatable, {}, { __gc = function()
		while true do end
	end }))
	local meta = {}
	local t = setmetatable({}, meta)
	meta.__gc = function()
		while true do end
	end
	t = nil
	collectgarbage("count")
	for i = 1, 10000 do
		local _ = { i }
	end
	tos.briefcase:folder("STOPPED"):push("refused")
end
