-- Guesses inboxes of another carrier and of the kernel.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	for i = 0, 20 do
		for _, name in ipairs { "box", "replies", "failures" } do
			local dest = "host0#" .. i .. "/" .. name
			local ok, code = tos.call(dest, "give", 0.05)
			assert(not ok, dest)
		end
	end
	for _, name in ipairs { "Kernel", "Handoff", "Home", "Registrar", "Link", "Store", "Audit" } do
		for _, verb in ipairs { "OFFER", "SEND", "KILL", "GRANT", "STOP", "ARRIVED", "ENDED", "VOID" } do
			local ok, code = tos.call(name, verb, 0.2)
			assert(not ok, name .. " " .. verb)
		end
	end
	tos.briefcase:folder("STOPPED"):push("refused")
end
