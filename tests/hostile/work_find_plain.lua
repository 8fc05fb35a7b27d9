-- A long needle in a long haystack.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("a"):rep(6000000):find(("a"):rep(3000000) .. "b", 1, true)
	end
end
