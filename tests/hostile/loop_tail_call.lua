-- A tail call to itself: no stack, no end.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
local function again()
	return again()
end
function begin(self)
	again()
end
