-- Calls itself for ever.
-- stopped by: error overflow
-- limits: memory=256M
-- within: 15 s
local function deep(n)
	return 1 + deep(n + 1)
end
function begin(self)
	deep(1)
end
