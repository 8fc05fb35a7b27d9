-- A lazy pattern on a long string: quadratic.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("a"):rep(100000):find(".-b")
	end
end
