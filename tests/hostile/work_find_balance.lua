-- Balanced pairs that never balance.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("("):rep(200000):find("%b()%b()x")
	end
end
