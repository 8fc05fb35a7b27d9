-- Moves through metamethods.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		table.move(setmetatable({}, { __index = function()
			return 1
		end, __newindex = function() end }), 1, 1 << 40, 2)
	end
end
