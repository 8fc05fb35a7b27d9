-- A long chain of __index tables, asked for ever.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = {}
	for i = 1, 1900 do
		t = setmetatable({}, { __index = t })
	end
	while true do
		local _ = t.x
	end
end
