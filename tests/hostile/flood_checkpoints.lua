-- Saves itself without end.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 30 s
function begin(self)
	self.s = ("x"):rep(100000)
	while true do
		tos.checkpoint()
	end
end
