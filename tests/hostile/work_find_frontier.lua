-- A frontier at each place.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("a"):rep(100000):find("%f[b].-c")
	end
end
