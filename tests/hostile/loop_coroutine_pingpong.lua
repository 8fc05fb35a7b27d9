-- Two coroutines that hand each other the word.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local co = coroutine.create(function()
		while true do
			coroutine.yield()
		end
	end)
	while true do
		coroutine.resume(co)
	end
end
