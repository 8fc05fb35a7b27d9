-- An endless loop in a coroutine.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	coroutine.wrap(function()
		while true do end
	end)()
end
