-- A list whose text is large.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local t = {}
	for i = 1, 5000 do
		t[i] = ("x"):rep(1000)
	end
	local s = table.concat(t)
	local u = {}
	while true do
		u[#u + 1] = s .. #u
	end
end
