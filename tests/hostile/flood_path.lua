-- A path without end.
-- stopped by: error limit state|limit memory|not enough memory
-- limits: state=100K memory=8M cpu=20
-- within: 15 s
function begin(self)
	for i = 1, 1e7 do
		tos.path:push("host" .. i)
	end
end
