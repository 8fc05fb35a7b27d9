-- Repeats nothing a trillion times.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = string.rep("", 1 << 40)
	end
end
