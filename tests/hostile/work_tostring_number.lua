-- Parses long numerals.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = tonumber("0x" .. ("f"):rep(1000000))
	end
end
