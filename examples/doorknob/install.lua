-- The install carrier of the doorknob monitor: brings the sensor to a host, starts it, says that it runs, hands on what
-- it says, and takes it away again. It goes on along its list of hosts by copies of itself: each host's copy gets the
-- program from the host before it, so the trusted host serves as many as there are chains.
--
-- It is told what to do by folder DOORKNOB, an element: {sensor = digest, args = {text}, trusted = kernel,
-- correlator = inbox, panel = inbox, rest = {kernel}, every = s}.

local function say(self, state, text)
	tos.post(self.panel, { host = tos.kernel(), carrier = tos.self().name, state = state, text = text, attempts = self.attempts,
		exposed = self.exposed }, { name = "status" })
end

-- From the host before us or from the trusted one; then this host admits it, because our owner may say so.
local function fetch(self, conf)
	local got, code, text = tos.call("Content", { digest = tos.bytes(conf.sensor), from = { self.from, conf.trusted },
		name = "doorknob-sensor" }, 60, { name = "FETCH" })
	if got then
		got, code, text = tos.call("Content", { digest = tos.bytes(conf.sensor), kind = "program", name = "doorknob-sensor" }, 10, { name = "ADMIT" })
	end
	return got, code, text
end

-- A copy to the next host of the list that can be reached; the others are named.
local function hand_on(self)
	while #self.rest > 0 do
		local dest, before = table.remove(self.rest, 1), self.from
		self.from = tos.kernel()
		local clone, code, text = tos.clone(dest)
		self.from = before
		if clone then
			self.rest = {}
			return
		end
		tos.post(self.panel, { host = dest, state = "missed", text = ("%s: %s"):format(code, text) }, { name = "status" })
	end
end

local function heard(self, conf, line)
	if line:find("^attempt ") then
		self.attempts = self.attempts + 1
	elseif line:find("^exposed ") then
		self.exposed = self.exposed + 1
	end
	tos.post(conf.correlator, tos.kernel() .. " " .. line, { name = "report" })
end

-- The panel's response: this host is to hear nothing more from there. How is the host's business, which names it as
-- an action of its own, granted to our owner; all that is said is the address.
local function shut_out(self, address)
	local ok, code, text = tos.call("Executor", { "ACTION", { name = "block", args = { address = address } } }, 20)
	if ok and ok.code ~= 0 then
		code, text = "failed", ok.stderr
	end
	tos.post(self.panel, { host = tos.kernel(), address = address, text = code and ("%s: %s"):format(code, text) or nil },
		{ name = "blocked" })
end

local function hex(digest)
	return (digest:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

function begin(self)
	local conf = tos.briefcase.DOORKNOB[1]
	local work = tos.inbox("work", 1024)
	self.panel = self.panel or conf.panel
	self.from = self.from or conf.trusted
	self.rest = self.rest or conf.rest
	self.attempts, self.exposed = 0, 0

	local ok, code, text = fetch(self, conf)
	hand_on(self)
	local handle
	if ok then
		ok, code, text = tos.call("Executor", { "RUN", { program = "sha256:" .. hex(conf.sensor), args = conf.args, argv0 = "sensor",
			network = true, output = "work", by = "line" } }, 30)
		handle = ok and ok.handle
	end
	if not ok then
		say(self, "failed", ("%s: %s"):format(code, text))
		return
	end
	say(self, "started")

	while true do
		local m = work:next(conf.every)
		-- Whoever else may post here is not listened to: only our owner's panel orders, only the Executor speaks for the sensor.
		if not m then
			say(self, "running")
		elseif m.sender == self.panel and m.owner == tos.self().owner then
			if m.name == "order" and m.data.stop then
				break
			elseif m.name == "order" and m.data.block then
				shut_out(self, m.data.block)
			end
		elseif m.sender ~= "Executor" and m.sender ~= tos.kernel() .. "/Executor" then
			tos.log("not from the panel, nor from the sensor: " .. m.sender)
		elseif m.data.line and m.data.stream == "stdout" then
			heard(self, conf, m.data.line)
		elseif m.data.line then
			tos.log("sensor: " .. m.data.line)
		else
			handle = nil
			say(self, "down", ("the sensor ended: %s %s"):format(m.data.cause or "?", m.data.code or m.data.signal or ""))
			break
		end
	end
	if handle then
		tos.call("Executor", { "STOP", { handle = handle } }, 20)
	end
	-- The bytes go, but where they came from. That they were admitted stays known: what is withdrawn never comes back.
	if tos.kernel() ~= conf.trusted then
		tos.call("Content", { digest = tos.bytes(conf.sensor) }, 10, { name = "DROP" })
	end
	if handle then
		say(self, "stopped")
	end
end
