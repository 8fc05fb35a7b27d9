-- A metamethod __eq that never ends.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = setmetatable({}, { __eq = function()
		while true do end
	end })
	local _ = t == setmetatable({}, getmetatable(t))
end
