-- Runs a program so many times, one after the other; each waits for the end of the one before.
function begin()
	local n = tonumber(tos.briefcase:folder("N"):get(1))
	local at = tos.now()
	for _ = 1, n do
		assert(tos.call("Executor", { "RUN", { program = "/bin/echo", args = { "x" }, wait = true } }, 20))
	end
	tos.briefcase:folder("MS"):push((tos.now() - at) * 1000 / n)
end
