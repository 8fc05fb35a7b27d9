-- Three lazy ones: of the fourth power.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("a"):rep(3000):find(".-.-.-b")
	end
end
