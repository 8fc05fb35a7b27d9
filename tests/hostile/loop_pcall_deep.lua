-- Two hundred protected calls, one in the other, each of which starts anew.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
local function dig(n)
	while true do
		if n == 0 then
			while true do end
		end
		pcall(dig, n - 1)
	end
end
function begin(self)
	dig(150)
end
