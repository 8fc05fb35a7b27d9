-- Sorts with a comparison that makes no sense, over and over.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = {}
	for i = 1, 20000 do
		t[i] = i * 7919 % 20011
	end
	while true do
		pcall(table.sort, t, function(a, b)
			return (a + b) % 3 == 0
		end)
	end
end
