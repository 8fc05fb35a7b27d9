-- One string that doubles.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local s = "x"
	while true do
		s = s .. s
	end
end
