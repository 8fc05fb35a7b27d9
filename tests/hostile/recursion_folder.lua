-- An element that is ten thousand tables deep.
-- stopped by: error nested too deeply
-- within: 15 s
function begin(self)
	local t = {}
	local top = t
	for i = 1, 10000 do
		t.t = {}
		t = t.t
	end
	tos.briefcase:folder("F"):push(top)
end
