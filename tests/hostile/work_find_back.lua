-- Back references.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("a"):rep(20000):find("(a*)(a*)%1%2b")
	end
end
