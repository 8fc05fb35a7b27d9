-- Posts without end.
-- stopped by: refusal limit
-- limits: posts=100 cpu=20
-- within: 15 s
function begin(self)
	for i = 1, 20000 do
		local ok, code = tos.post("Echo", i)
		if not ok then
			tos.briefcase:folder("STOPPED"):push(code)
			return
		end
	end
end
