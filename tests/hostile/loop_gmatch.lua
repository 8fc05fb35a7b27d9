-- An iterator that finds an empty match for ever.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		for _ in string.gmatch(("x"):rep(1000), "") do end
	end
end
