-- Moves a trillion fields.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		table.move({}, 1, 1 << 40, 2)
	end
end
