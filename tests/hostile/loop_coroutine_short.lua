-- Coroutines that end before a standing count hook would look.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		coroutine.wrap(function()
			for i = 1, 100 do end
		end)()
	end
end
