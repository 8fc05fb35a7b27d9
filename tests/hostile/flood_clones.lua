-- A fork bomb: each copy copies itself for as long as it may.
-- stopped by: refusal limit
-- limits: clones=30 cpu=20
-- within: 20 s
function begin(self)
	tos.path:clear()
	for _ = 1, 1000 do
		local name, code = tos.clone(tos.kernel())
		if not name then
			tos.briefcase:folder("STOPPED"):push(code)
			return
		end
	end
end
