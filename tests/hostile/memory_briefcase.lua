-- A briefcase without end.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local f = tos.briefcase:folder("F")
	while true do
		f:push(("x"):rep(1000))
	end
end
