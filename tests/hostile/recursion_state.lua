-- A self that is ten thousand tables deep leaves.
-- stopped by: error nested too deeply
-- within: 15 s
function begin(self)
	local t = {}
	self.t = t
	for i = 1, 10000 do
		t.t = {}
		t = t.t
	end
	tos.checkpoint()
end
