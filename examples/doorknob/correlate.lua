-- Runs the correlator on the trusted host: what install carriers report goes to its standard input, what it says on its
-- standard output to the panel.
--
-- Folder DOORKNOB, an element: {correlator = digest, config = text, panel = inbox}.

local function hex(digest)
	return (digest:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

function begin(self)
	local conf = tos.briefcase.DOORKNOB[1]
	local reports = tos.inbox("reports", 4096)
	self.panel = self.panel or conf.panel

	assert(tos.call("Content", { digest = tos.bytes(conf.correlator), kind = "program", name = "doorknob-correlator" }, 10, { name = "ADMIT" }))
	local run = assert(tos.call("Executor", { "RUN", { program = "sha256:" .. hex(conf.correlator), argv0 = "correlator", args = { "-" },
		stdin = conf.config .. "\n", input = true, output = "reports", by = "line" } }, 30))
	tos.post(self.panel, { state = "correlating" }, { name = "status" })

	while true do
		local m = reports:next(60)
		if m and m.name == "report" and type(m.data) == "string" then
			local ok, code, text = tos.call("Executor", { "WRITE", { handle = run.handle, data = m.data .. "\n" } }, 10)
			if not ok then
				tos.log(("the correlator does not take a report: %s: %s"):format(code, text))
			end
		elseif m and m.sender == self.panel and m.owner == tos.self().owner then
			if m.name == "order" and m.data.stop then
				tos.call("Executor", { "STOP", { handle = run.handle } }, 20)
				tos.post(self.panel, { state = "stopped" }, { name = "correlator" })
				return
			end
		elseif m and m.sender ~= "Executor" and m.sender ~= tos.kernel() .. "/Executor" then
			tos.log("neither a report nor from the correlator: " .. m.sender)
		elseif m and m.data.line and m.data.stream == "stdout" then
			tos.post(self.panel, m.data.line, { name = "alarm" })
		elseif m and m.data.line then
			tos.log("correlator: " .. m.data.line)
		elseif m then
			error(("the correlator ended: %s %s"):format(m.data.cause or "?", m.data.code or m.data.signal or ""))
		end
	end
end
