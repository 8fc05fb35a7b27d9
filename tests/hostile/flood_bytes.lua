-- Sends more than it may in all.
-- stopped by: refusal limit
-- limits: sent=200K posts=100000 cpu=20
-- within: 15 s
function begin(self)
	for i = 1, 20000 do
		local ok, code = tos.post("Echo", ("x"):rep(10000))
		if not ok then
			tos.briefcase:folder("STOPPED"):push(code)
			return
		end
		tos.sleep(0)
	end
end
