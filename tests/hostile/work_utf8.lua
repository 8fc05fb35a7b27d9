-- Counts the characters of a long string.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = utf8.len(("ä"):rep(1000000))
	end
end
