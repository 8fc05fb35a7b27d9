-- Unpacks as much as fits.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = select("#", table.unpack({}, 1, 100000))
	end
end
