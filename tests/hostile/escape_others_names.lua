-- Opens inboxes with names that belong to the system or to others.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	for _, name in ipairs { "Echo", "Kernel", "Home", "../x", "host0#0/box", "", "a/b", ("x"):rep(1000), "\0", "X" } do
		local ok, box = pcall(tos.inbox, name)
		assert(not ok or not box, "opened " .. name)
	end
	tos.briefcase:folder("STOPPED"):push("refused")
end
