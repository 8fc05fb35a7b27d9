-- Asks an emptied table for its first field.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local t = {}
		for i = 1, 200000 do
			t[i] = i
		end
		for i = 1, 200000 do
			t[i] = nil
		end
		for _ = 1, 1000 do
			local _ = next(t)
		end
	end
end
