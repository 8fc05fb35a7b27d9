-- Makes garbage for ever.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local t = {}
		for i = 1, 100 do
			t[i] = { i }
		end
	end
end
