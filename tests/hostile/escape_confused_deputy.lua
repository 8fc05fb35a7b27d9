-- Asks extensions to reach for it where it may not.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	for _, path in ipairs { "/../../etc/shadow", "../../../proc/1/environ", "/proc/self/mem", ("/x"):rep(3000), "\0" } do
		local ok = tos.call("Monitor", { "filesystem", path }, 1)
		assert(type(ok) ~= "string", "it read " .. path)
	end
	for _, dest in ipairs { "Echo/../Kernel", "/Kernel", "host0//Kernel", "host0/Kernel/", "Messenger/Kernel" } do
		local ok = pcall(tos.call, dest, "KILL", 0.2)
	end
	local ok = tos.call("Messenger", { "SEND", "Kernel", "KILL" }, 1)
	assert(not ok or type(ok) ~= "string")
	tos.briefcase:folder("STOPPED"):push("refused")
end
