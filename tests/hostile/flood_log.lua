-- Logs without end.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		tos.log(("x"):rep(10000))
	end
end
