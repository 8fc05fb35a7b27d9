-- Strings that all differ.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local t = {}
	while true do
		t[#t + 1] = ("x"):rep(1000) .. #t
	end
end
