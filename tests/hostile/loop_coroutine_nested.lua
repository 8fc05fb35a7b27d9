-- Coroutines in coroutines, the innermost never ends.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
local function dive(n)
	if n == 0 then
		while true do end
	end
	coroutine.wrap(dive)(n - 1)
end
function begin(self)
	dive(50)
end
