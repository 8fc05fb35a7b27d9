-- Waits for ever.
-- stopped by: limit lifetime
-- limits: lifetime=2
-- within: 15 s
function begin(self)
	local box = tos.inbox("never")
	while true do
		box:next(60)
	end
end
