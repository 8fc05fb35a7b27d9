-- Opens inboxes without end.
-- stopped by: refusal *
-- limits: cpu=20
-- within: 15 s
function begin(self)
	for i = 1, 100000 do
		local ok, box, code = pcall(tos.inbox, "i" .. i)
		if not ok or not box then
			tos.briefcase:folder("STOPPED"):push(ok and code or "error")
			return
		end
	end
end
