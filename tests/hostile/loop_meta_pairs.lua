-- A metamethod __pairs that never ends.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = setmetatable({}, { __pairs = function()
		while true do end
	end })
	pairs(t)
end
