-- Opens questions and never takes an answer.
-- stopped by: refusal full or refusal limit
-- limits: posts=100000 cpu=20
-- within: 15 s
function begin(self)
	for i = 1, 20000 do
		local ok, code = tos.ask("Echo", i)
		if not ok then
			tos.briefcase:folder("STOPPED"):push(code)
			return
		end
	end
end
