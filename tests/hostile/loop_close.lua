-- A __close that never ends.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local x <close> = setmetatable({}, { __close = function()
		while true do end
	end })
end
