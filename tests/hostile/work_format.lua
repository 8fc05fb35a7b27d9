-- Formats what is long.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = string.format("%q", ("\0"):rep(500000))
	end
end
