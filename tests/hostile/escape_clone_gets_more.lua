-- A copy is to get more than there is, one budget after the other.
-- stopped by: refusal limit
-- limits: clones=4
-- within: 20 s
function begin(self)
	tos.path:clear()
	local code
	for name, value in pairs { cpu = 1e6, hops = 1000000, sent = 1 << 50, clones = 4 } do
		local made
		made, code = tos.clone(tos.kernel(), { [name] = value })
		if made or code ~= "limit" then
			return
		end
	end
	tos.briefcase:folder("STOPPED"):push(code)
end
