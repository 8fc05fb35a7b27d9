-- Concatenates a proxy that never ends.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		table.concat(setmetatable({}, { __index = table.concat, __len = function()
			return 1 << 40
		end }), "", 1, 1 << 40)
	end
end
