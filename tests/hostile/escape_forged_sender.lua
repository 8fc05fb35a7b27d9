-- Claims to be somebody else.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	local me = tos.self().name
	local box = tos.inbox("mail")
	for _, options in ipairs { { sender = "host0" }, { from = "admin" }, { sender = "host0#0", owner = "root" } } do
		pcall(tos.post, me .. "/mail", { sender = "host0" }, options)
	end
	for _ = 1, 3 do
		local folder = box:next(1)
		if folder then
			assert(folder.sender:find(me, 1, true), "it says " .. tostring(folder.sender))
		end
	end
	tos.briefcase:folder("STOPPED"):push("refused")
end
