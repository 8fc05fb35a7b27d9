-- A for loop whose iterator never ends.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	for _ in function()
		return 1
	end do end
end
