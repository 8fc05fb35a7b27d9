-- A metamethod __newindex that never ends.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = setmetatable({}, { __newindex = function()
		while true do end
	end })
	t.x = 1
end
