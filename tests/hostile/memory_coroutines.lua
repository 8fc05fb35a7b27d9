-- Coroutines that all wait.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local t = {}
	while true do
		local co = coroutine.create(function()
			coroutine.yield()
		end)
		coroutine.resume(co)
		t[#t + 1] = co
	end
end
