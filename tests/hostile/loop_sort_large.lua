-- Sorts half a million numbers again and again.
-- stopped by: limit cpu or limit memory or error too long
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = {}
	for i = 1, 500000 do
		t[i] = i * 7919 % 500009
	end
	while true do
		table.sort(t, function(a, b)
			return a > b
		end)
		table.sort(t)
	end
end
