-- Captures that overlap.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("x"):rep(20000):gsub("(.*)(.*)(.*)y", "")
	end
end
