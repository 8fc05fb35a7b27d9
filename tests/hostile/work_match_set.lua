-- A large set against a long string.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("a"):rep(100000):match("[" .. ("b-z"):rep(3000) .. "]*c")
	end
end
