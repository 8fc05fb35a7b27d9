-- A table with a hundred million names.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local t = {}
	for i = 1, 1e8 do
		t["k" .. i] = true
	end
end
