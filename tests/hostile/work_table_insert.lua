-- Inserts at the front of a long list.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local t = {}
		for i = 1, 500000 do
			t[i] = i
		end
		while true do
			table.insert(t, 1, 0)
			table.remove(t, 1)
		end
	end
end
