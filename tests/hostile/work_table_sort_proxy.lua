-- Sorts a proxy of two thousand million.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		table.sort(setmetatable({}, { __len = function()
			return (1 << 31) - 2
		end }), math.type)
	end
end
