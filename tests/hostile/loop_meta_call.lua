-- A metamethod __call that never ends.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = setmetatable({}, { __call = function()
		while true do end
	end })
	t()
end
