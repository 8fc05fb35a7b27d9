-- Sleeps no time at all, for ever.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		tos.sleep(0)
	end
end
