-- Fills its own inbox.
-- stopped by: refusal limit
-- limits: posts=100 inbox=10 cpu=20
-- within: 15 s
function begin(self)
	tos.inbox("box")
	for i = 1, 100000 do
		local ok, code = tos.post(tos.self().name .. "/box", ("x"):rep(1000))
		if not ok then
			tos.briefcase:folder("STOPPED"):push(code)
			return
		end
	end
end
