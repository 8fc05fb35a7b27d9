-- Shifts a thousand arguments for ever.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = {}
	for i = 1, 200 do
		t[i] = i
	end
	local function spin(...)
		for i = 1, select("#", ...) do
			local _ = select(i, ...)
		end
		return spin(...)
	end
	spin(table.unpack(t))
end
