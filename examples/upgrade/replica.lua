-- A replica of the service, on its host: it runs the server by the Executor, watches it, starts it again when it has died, and
-- has its part in an upgrade. Everything that takes time or can fail is done before the vote: the release is fetched, admitted,
-- and tried at the port that it will have. What is left is to stop the one and start the other.
--
-- Folders: RELEASE, "VERSION PORT SHA256", what it begins with; FROM, the kernel whose store has releases; ADDRESS of this host,
-- MASTER the address that replicas follow. Posts to inbox `replica`: status, { tx, release, hold? }, { switch = release }.
local commit = require "commit"

local STAY = "redis" -- what outlives this carrier's process, by its name
local boxes = {}

local function release_of(text)
	local version, port, sha256 = text:match("^(%S+) (%d+) (%x+)$")
	return { version = version, port = port, sha256 = sha256 }
end

local function bytes(hex)
	return tos.bytes((hex:gsub("%x%x", function(two) return string.char(tonumber(two, 16)) end)))
end

local function executor(verb, args, timeout)
	return tos.call("Executor", { verb, args }, timeout or 30)
end

-- ---- a server

local function command(release, trial)
	local args = { "--bind", tos.briefcase.ADDRESS[1], "--port", release.port, "--protected-mode", "no", "--save", "", "--daemonize", "no",
		"--maxmemory", "16mb", "--maxclients", "200", "--repl-diskless-sync-delay", "0" }
	if not trial and tos.briefcase.MASTER[1] ~= tos.briefcase.ADDRESS[1] then
		table.move({ "--replicaof", tos.briefcase.MASTER[1], release.port }, 1, 3, #args + 1, args)
	end
	return args
end

-- Runs one, and returns when it takes connections; or nil, why.
local function serve(release, trial)
	local inbox = boxes[trial and "trial" or "server"]
	local p, code, text = executor("RUN", { program = "sha256:" .. release.sha256, argv0 = "redis-server", args = command(release, trial),
		network = true, stay = not trial, name = not trial and STAY .. release.version or nil, output = trial and "trial" or "server" })
	if not p then
		return nil, text or code
	elseif p.again then
		return p -- it outlived us, or our kernel
	end
	local last, until_clock = "it said nothing", tos.clock() + 10
	while true do
		local m = inbox:next(math.max(0, until_clock - tos.clock()))
		if not m then
			executor("STOP", { handle = p.handle, after = 0 })
			return nil, "the server does not answer: " .. last
		elseif m.name == "end" and m.data.handle == p.handle then
			return nil, "the server ended at once: " .. last
		elseif m.name == "output" and m.data.handle == p.handle then
			if m.data.line:find("Ready to accept connections", 1, true) then
				return p
			elseif m.data.line:find(" # ", 1, true) and not last:find(": bind: ", 1, true) then
				last = m.data.line:match(" # (.*)$"):gsub("^Warning: Could not create server TCP listening socket ", "")
			end
		end
	end
end

local function stop(p)
	if p then
		executor("STOP", { handle = p.handle, after = 5 })
	end
end

-- ---- a release

local function fetch(release)
	local digest = bytes(release.sha256)
	local ok, code, text = tos.call("Content", { digest = digest, from = tos.briefcase.FROM[1], name = "redis-server", pin = true }, 20,
		{ name = "FETCH" })
	if ok then
		ok, code, text = tos.call("Content", { digest = digest, kind = "program", name = "redis-server", version = release.version }, 10,
			{ name = "ADMIT" })
	end
	return ok ~= nil, text or code
end

local function prepare(self, release)
	local ok, why = fetch(release)
	if ok and self.now.version ~= release.version then
		local p
		p, why = serve(release, true)
		stop(p)
		ok = p ~= nil
	end
	return ok and { from = self.now.version, to = release.version } or nil, why
end

-- Done before, it does nothing.
local function switch(self, w, release)
	if self.now.version ~= release.version then
		stop(w.p)
		w.p = nil
		self.was, self.now = self.now, release
		tos.checkpoint()
	end
	local why
	if not w.p then
		w.p, why = serve(release)
	end
	return w.p and { version = release.version } or nil, why
end

local function drop(release)
	if tos.kernel() ~= tos.briefcase.FROM[1] then -- where releases are published
		tos.call("Content", { digest = bytes(release.sha256) }, 10, { name = "DROP" })
	end
end

-- ---- its part in an upgrade

-- The example's way to have a host die just now: it waits to be told to go on.
local function held()
	tos.log("held")
	tos.inbox("hold"):next(60)
end

local function take_part(self, w)
	local order = self.order
	local release = release_of(order.release)
	local state = commit.participant {
		tx = order.tx,
		prepare = function(_, dry)
			if order.hold == tos.kernel() then
				held()
			end
			local plan, why = prepare(self, release)
			if dry then
				drop(release)
			end
			return plan, why
		end,
		-- All the others switch: this host has to, as soon as it can. An error here is a fault of the carrier, which an
		-- operator mends and then has it retry.
		commit = function()
			local now, why
			for _ = 1, 60 do
				now, why = switch(self, w, release)
				if now then
					return now
				end
				tos.sleep(1)
				fetch(release) -- it may be gone
			end
			error(why)
		end,
		abort = function()
			if self.now.version ~= release.version then
				drop(release)
			end
		end,
	}
	tos.log(("%s: version %s runs"):format(tostring(state), self.now.version))
	self.order = nil
	tos.checkpoint()
end

-- ---- standing by

local function watch(self, w)
	local m = boxes.server:next(0)
	while m do
		if m.name == "end" and w.p and m.data.handle == w.p.handle then
			tos.log(("the server ended: %s"):format(tostring(m.data.cause)))
			w.p = nil
		end
		m = boxes.server:next(0)
	end
	if not w.p then
		local why
		w.p, why = serve(self.now)
		tos.log(w.p and ("version %s runs"):format(self.now.version) or why)
	end
end

function begin(self)
	for _, name in ipairs { "replica", "server", "trial" } do
		boxes[name] = assert(tos.inbox(name))
	end
	self.now = self.now or release_of(tos.briefcase.RELEASE[1])
	local w = {}
	local ok, why = fetch(self.now)
	if not ok then
		error(why)
	end
	while true do
		if not self.order then
			watch(self, w)
		else
			take_part(self, w)
		end
		local m = boxes.replica:next(w.p and 0.5 or 0.2)
		local d = m and m.data
		if type(d) == "table" and d.tx then
			self.order = d
			tos.checkpoint() -- what is known now is known after a crash
		elseif type(d) == "table" and d.switch then
			local release = release_of(d.switch)
			local plan, now
			plan, why = prepare(self, release)
			if plan then
				now, why = switch(self, w, release)
			end
			if now then
				m:answer({ now })
			else
				m:refuse("refused", why)
			end
		elseif m and m.wants_answer then
			m:answer({ { version = self.now.version, running = w.p ~= nil } })
		end
	end
end
