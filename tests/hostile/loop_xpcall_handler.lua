-- The error handler is what never ends.
-- stopped by: limit cpu or error too long without a pause|hung
-- limits: cpu=1
-- within: 15 s
function begin(self)
	xpcall(error, function()
		while true do end
	end)
end
