-- Stars that overlap.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("a"):rep(1000):find("a*a*a*a*b")
	end
end
