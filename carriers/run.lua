-- run: what `tos run` sends. One carrier stays at home and conducts; one goes to each host, waits there
-- until its turn has come, does the task, and tells. The plan is that of the library waves.
--
-- TASK, a map, is what both are told: { role, hosts, key?, client?, boss?, host?, at?, argv? or carrier?, action?, files?, env?,
-- stdin?, limits?, timeout, arrive, where?, dry?, undo?, turns, output, waves?, max_fail?, retries?, pause?,
-- durable? }. Posts to inbox `run` of the one at home: folders ready, done (from the others), and the words
-- pause, resume, stop, retry from people: tos post host0#1/run stop.

local waves = require "waves"

local ASK = 60     -- s: how long one question to the conductor may wait; it is asked again
local SLACK = 10   -- s: what a host gets beyond its task's own limit before it counts as lost

-- ---- where: facts of the host, "os=Linux,memory>4G"

local FACTS = { -- the field that is meant by the bare name
	os = "name", host = "hostname", memory = "total", load = "one",
	cpus = { "host", "cpus" }, hostname = { "host", "hostname" }, machine = { "os", "machine" },
	release = { "os", "release" }, uptime = { "host", "uptime_ms", 0.001 },
}
local UNITS = { K = 1 << 10, M = 1 << 20, G = 1 << 30, T = 1 << 40 }

local function fact(name, known)
	local what, field = name:match("^([%w_]+)%.([%w_]+)$")
	local scale
	if not what then
		local f = FACTS[name]
		if type(f) == "table" then
			what, field, scale = f[1], f[2], f[3]
		elseif f then
			what, field = name, f
		else
			error(("there is no fact %s; there are os host memory load cpus hostname machine release uptime, and "
				.. "fields such as memory.available"):format(name), 0)
		end
	end
	if known[what] == nil then
		local answer, code, text = tos.call("Monitor", { what }, 10)
		if not answer then
			error(("Monitor does not tell %s: %s"):format(what, text or code), 0)
		end
		known[what] = answer
	end
	local value = known[what][field]
	if value == nil then
		error(("Monitor's %s has no field %s"):format(what, field), 0)
	end
	return scale and value * scale or value
end

local function holds(have, op, want)
	if type(have) == "number" then
		local n, unit = want:match("^(-?[%d.]+)([KMGT]?)$")
		n = tonumber(n)
		if not n then
			error(("%s is no number"):format(want), 0)
		end
		want = n * (UNITS[unit] or 1)
	elseif op ~= "=" and op ~= "!=" then
		error("texts can be compared by = and != only", 0)
	end
	if op == "=" then
		return have == want
	elseif op == "!=" then
		return have ~= want
	elseif op == "<" then
		return have < want
	elseif op == ">" then
		return have > want
	elseif op == "<=" then
		return have <= want
	end
	return have >= want
end

local function matches(where)
	local known = {}
	for condition in where:gmatch("[^,]+") do
		local name, op, want = condition:match("^%s*([%w_.]+)%s*([<>!=]=?)%s*(.-)%s*$")
		if not name or op == "!" or op == "==" then
			error(("'%s' is no condition such as os=Linux or memory>4G"):format(condition), 0)
		end
		if not holds(fact(name, known), op, want) then
			return false
		end
	end
	return true
end

-- ---- the task, on its host

-- The file for this machine, got from home where it is not here, and admitted. Its name for Executor.
local function bring(task)
	local file = #task.files == 1 and task.files[1]
	if not file then
		local os, code, text = tos.call("Monitor", { "os" }, 10)
		if not os then
			return nil, code, text
		end
		for _, f in ipairs(task.files) do
			file = (f.machine == os.machine or (f.machine == "any" and not file)) and f or file
		end
		if not file then
			return nil, "not-found", "none of the files is for this machine, " .. tostring(os.machine)
		end
	end
	local wait = math.max(task.timeout, 10)
	local ok, code, text = tos.call("Content", { { digest = tos.bytes(file.digest), from = tos.self().home, name = file.name } },
		wait, { name = "FETCH" })
	if ok then
		ok, code, text = tos.call("Content", { { digest = tos.bytes(file.digest), kind = "program", name = file.name,
			machine = file.machine } }, wait, { name = "ADMIT" })
	end
	if not ok then
		return nil, code, text
	end
	return "sha256:" .. file.hex
end

-- A program, by Executor; what became of it.
local function run_program(task, argv)
	local program, argv0 = argv[1], nil
	if task.files and argv == task.argv then
		local code, text
		program, code, text = bring(task)
		if not program then
			return { ok = false, code = code, text = text }
		end
		argv0 = argv[1]
	end
	local args = table.move(argv, 2, #argv, 1, {})
	local limits = { wall = task.timeout }
	for name, value in pairs(task.limits or {}) do
		limits[name] = value
	end
	if task.dry then -- may it be run here, and is it there?
		local r, code, text = tos.call("Executor", { "RUN", { program = program, argv0 = argv0, args = args, env = task.env, limits = limits,
			dry = true } }, 30)
		return { ok = r ~= nil, code = code, text = text or r and "would run " .. r.program }
	end
	local r, code, text = tos.call("Executor", { "RUN", { program = program, argv0 = argv0, args = args, env = task.env,
		stdin = task.stdin, limits = limits, capture = task.output, wait = true } }, task.timeout + SLACK / 2)
	if not r then
		return { ok = false, code = code, text = text }
	end
	local result = { ok = r.code == 0, exit = r.code, signal = r.signal, stdout = r.stdout, stderr = r.stderr }
	result.cut = (r.stdout_cut or 0) ~= 0 or (r.stderr_cut or 0) ~= 0 or nil
	if r.cause == "wall" then
		result.code, result.text = "timed-out", ("it ran for longer than %g s"):format(limits.wall)
	elseif r.cause ~= "exited" then
		result.code, result.text = "limit", r.cause
	end
	return result
end

-- A named action of this host's; as a program's, but what it may print is little.
local function run_action(task)
	local r, code, text = tos.call("Executor", { "ACTION", { name = task.action.name, args = task.action.args, dry = task.dry } },
		task.timeout + SLACK / 2)
	if not r then
		return { ok = false, code = code, text = text }
	elseif task.dry then
		return { ok = true, text = "would run action " .. r.action }
	end
	local result = { ok = r.code == 0, exit = r.code, signal = r.signal, stdout = r.stdout, stderr = r.stderr }
	result.cut = (r.stdout_cut or 0) ~= 0 or (r.stderr_cut or 0) ~= 0 or nil
	if r.cause == "wall" then
		result.code, result.text = "timed-out", "it took longer than the host gives it"
	end
	return result
end

-- A carrier of the user's, as if it had been launched to here.
local function run_carrier(self, task)
	if task.dry then
		return { ok = true, text = "would begin " .. task.carrier }
	end
	local _, globals = require(task.carrier)
	self.task = self.task or {}
	tos.briefcase:folder("RESULTS"):clear()
	local ok, why = pcall(globals.begin, self.task)
	local rows = tos.briefcase:folder("RESULTS"):get()
	if not ok then
		return { ok = false, code = "fault", text = tostring(why), rows = rows }
	end
	return { ok = true, rows = rows }
end

local function perform(self, task, what)
	local began = tos.clock()
	local result
	if what == "undo" then
		result = run_program(task, task.undo)
	elseif task.carrier then
		result = run_carrier(self, task)
	elseif task.action then
		result = run_action(task)
	else
		result = run_program(task, task.argv)
	end
	result.ms = math.floor((tos.clock() - began) * 1000 + 0.5)
	result.at = tos.kernel()
	return result
end

-- Asks the conductor until it answers: what to do now.
local function ask(self, task, name, result)
	local misses = 0
	while misses < 10 do
		local word, code = tos.call(task.boss .. "/run", { { host = task.host, result = result, key = task.key } }, ASK, { name = name })
		if word then
			return word
		end
		if not task.durable and (code == "no-such-inbox" or code == "not-found") then
			break -- it has ended
		end
		misses = code == "timed-out" and misses or misses + 1
		tos.sleep(code == "timed-out" and 0 or math.min(misses, 5))
	end
	return "end"
end

local function is_there(task)
	for _, name in ipairs(task.at) do
		if name == tos.kernel() then
			return true
		end
	end
	return false
end

local function worker(self, task)
	if not is_there(task) then -- home, the last alternative
		local why = { ok = false, down = true, code = "unreachable", text = ("no link to %s could be made"):format(task.host) }
		while ask(self, task, "done", why) == "again" do
			tos.sleep(1)
			for _, name in ipairs(task.at) do
				local _, code, text = tos.go(name) -- does not return where it works
				why.code, why.text = code, text
			end
		end
		return
	end
	if self.begun then -- a crash came over it: nobody knows how far it was
		local result = self.result or { ok = false, code = "unknown", text = "its kernel went down over it" }
		ask(self, task, "done", result)
		return
	end
	local known = {}
	if task.where then
		local ok, yes = pcall(matches, task.where)
		known = { matches = ok and yes, bad = not ok and yes or nil }
	end
	local word = task.turns and ask(self, task, "ready", known) or "go"
	while word == "go" or word == "undo" do
		if task.durable then
			self.begun = true
			tos.checkpoint()
		end
		self.result = perform(self, task, word)
		if task.durable then
			tos.checkpoint()
		end
		word = ask(self, task, word == "undo" and "undone" or "done", self.result)
		if word == "again" or word == "stay" then
			self.begun = nil
			word = ask(self, task, "ready", { stays = true })
		end
	end
	tos.briefcase.RESULT = { self.result }
end

-- ---- the one at home

local function tell(task, name, row)
	if task.client then
		tos.post(task.client, row, { name = name })
	end
end

local function row_of(plan, host)
	local h = plan.hosts[host]
	local r = h.result or {}
	return { host = host, at = r.at ~= host and r.at or nil, state = h.state, wave = h.wave, tries = h.tries, exit = r.exit,
		signal = r.signal, ms = r.ms, code = r.code, text = r.text }
end

local conductor = {}

-- Nobody waits for a host for ever: neither for its arrival nor for its answer.
function conductor.due(c, host, s)
	c.due[host] = tos.clock() + s
end

function conductor.report(c, host, result)
	local out = { stdout = result.stdout, stderr = result.stderr, cut = result.cut, rows = result.rows }
	result.stdout, result.stderr, result.cut, result.rows = nil, nil, nil, nil
	local state = waves.report(c.plan, host, result)
	c.due[host], c.going[host] = nil, nil
	c.output[host] = out
	if state == "waiting" then
		return state -- to be tried again
	end
	local row = row_of(c.plan, host)
	row.stdout, row.stderr, row.cut, row.rows = out.stdout, out.stderr, out.cut, out.rows
	tell(c.task, "row", row)
	return state
end

-- What was told must not be forgotten once its teller knows that: a durable run is saved first, once for
-- all that came together.
function conductor.answer(c, m, word)
	c.answers[#c.answers + 1] = { m, word }
	if not c.task.durable then
		conductor.flush(c)
	end
end

function conductor.flush(c)
	if #c.answers == 0 then
		return
	end
	if c.task.durable then
		tos.checkpoint()
	end
	for _, a in ipairs(c.answers) do
		a[1]:answer({ a[2] })
	end
	c.answers = {}
end

-- Its turn has come: now, or as soon as it is there.
function conductor.turn(c, host)
	c.going[host] = true
	local m = c.waiting[host]
	if m then
		c.waiting[host] = nil
		m:answer({ "go" })
		conductor.due(c, host, c.task.timeout + SLACK)
	else
		conductor.due(c, host, c.task.turns and c.task.arrive or c.task.arrive + c.task.timeout)
	end
end

function conductor.on_ready(c, m, host, known)
	if c.left_out[host] then
		m:answer({ "end" })
	elseif known.bad then
		c.bad = c.bad or known.bad
		c.left_out[host] = true
		m:answer({ "end" })
	elseif known.matches == false then
		c.left_out[host] = true
		m:answer({ "end" })
	elseif c.going[host] then
		m:answer({ "go" })
		conductor.due(c, host, c.task.timeout + SLACK)
	else
		c.waiting[host] = m
	end
	c.seen[host] = true
end

function conductor.on_done(c, m, host, result)
	local h = c.plan and c.plan.hosts[host]
	if not h or h.state ~= "running" then
		conductor.answer(c, m, (h and h.state == "waiting" or c.task.undo) and "stay" or "end")
		return
	end
	local state = conductor.report(c, host, result)
	conductor.answer(c, m, state == "waiting" and "again" or c.task.undo and not result.down and "stay" or "end")
end

function conductor.on_undone(c, m, host, result)
	if c.plan.state == "undoing" then
		waves.undone(c.plan, host, result.ok)
		c.plan.hosts[host].result = result
		c.due[host] = nil
		tell(c.task, "row", row_of(c.plan, host))
	end
	conductor.answer(c, m, "end")
end

function conductor.on_word(c, word)
	local f = ({ pause = waves.pause, resume = waves.resume, stop = waves.stop, retry = waves.retry })[word]
	if f and c.plan then
		tos.log(word .. ":", f(c.plan))
	end
end

conductor.tells = { ready = conductor.on_ready, done = conductor.on_done, undone = conductor.on_undone }

-- The next folder that came, at the latest when somebody is overdue.
function conductor.step(c)
	local now, next_due = tos.clock(), math.huge
	if #c.answers >= 64 or #c.inbox == 0 then
		conductor.flush(c)
	end
	for host, at in pairs(c.due) do
		if at <= now then
			c.due[host] = nil
			c.overdue(host)
			return
		end
		next_due = math.min(next_due, at)
	end
	local m = c.inbox:next(math.min(next_due - now, ASK))
	if not m then
		return
	end
	local data, deal = m.data, conductor.tells[m.name]
	-- Anybody may post here whom policy lets: its owner steers a run, and its own members report, with its key.
	if (m.name == "" or m.name == "client") and m.owner ~= tos.self().owner then
		local who = m.owner or "a " .. (m.class or "sender") .. " that did not say whose it is"
		if c.refused ~= who then
			tos.log(who .. " does not steer this run")
			c.refused = who
		end
		return m.wants_answer and m:refuse("denied", "its owner steers this run")
	elseif m.name == "" then
		return conductor.on_word(c, data)
	elseif m.name == "client" then
		c.task.client = data
		return
	end
	if type(data) ~= "table" or not c.known[data.host] or not deal or data.key ~= c.task.key then
		return m.wants_answer and m:refuse("malformed", "that is none of this run")
	end
	local result = type(data.result) == "table" and data.result or {}
	deal(c, m, data.host, result)
end

-- Who is there, and of those, who is meant?
local function select_hosts(c)
	local missing = #c.task.hosts
	c.overdue = function(host)
		c.seen[host] = true
	end
	for _, host in ipairs(c.task.hosts) do
		conductor.due(c, host, c.task.arrive)
	end
	while true do
		missing = 0
		for _, host in ipairs(c.task.hosts) do
			missing = missing + (c.seen[host] and 0 or 1)
			c.due[host] = not c.seen[host] and c.due[host] or nil
		end
		if missing == 0 then
			break
		end
		conductor.step(c)
	end
	local hosts = {}
	for _, host in ipairs(c.task.hosts) do
		if not c.left_out[host] then
			hosts[#hosts + 1] = host
		end
	end
	return hosts
end

local function overdue(c, host)
	if c.plan.state == "undoing" then
		waves.undone(c.plan, host, false)
	elseif c.plan.hosts[host].state == "running" then
		local came = c.seen[host] or not c.task.turns
		conductor.report(c, host, { ok = false, down = not came, code = "timed-out",
			text = came and "it did not tell how it ended" or "it was not reached in time" })
	end
end

local function run_plan(c)
	local plan, save = c.plan, c.task.durable and tos.checkpoint or function() end
	c.overdue = function(host)
		overdue(c, host)
	end
	waves.recover(plan)
	while true do
		local hosts = waves.next(plan)
		if hosts then
			save()
			for _, host in ipairs(hosts) do
				conductor.turn(c, host)
			end
		elseif plan.state ~= "running" and plan.state ~= "paused" then
			return conductor.flush(c)
		elseif plan.state == "paused" and not c.told_pause then
			tell(c.task, "paused", { wave = plan.wave, name = tos.self().name })
			tos.log(("paused behind wave %d; tos post %s/run resume, or stop"):format(plan.wave, tos.self().name))
		end
		c.told_pause = plan.state == "paused"
		conductor.step(c)
	end
end

local function undo_all(c)
	local open = waves.undo(c.plan)
	for _, host in ipairs(open) do
		c.due[host] = tos.clock() + c.task.timeout + SLACK
	end
	while c.plan.state == "undoing" do
		for _, host in ipairs(open) do
			local m = c.waiting[host]
			if m and c.due[host] then
				c.waiting[host] = nil
				m:answer({ "undo" })
			end
		end
		conductor.step(c)
	end
end

local function conduct(self, task)
	local c = { task = task, due = {}, waiting = {}, going = {}, seen = {}, left_out = {}, known = {}, answers = {} }
	c.inbox = assert(tos.inbox("run"))
	for _, host in ipairs(task.hosts) do
		c.known[host] = true
	end
	local function plan_of(hosts)
		return waves.new(hosts, { waves = task.waves, max_fail = task.dry and "100%" or task.max_fail or (task.turns and 0 or "100%"),
			retries = task.retries, pause = task.pause, undo = task.undo ~= nil })
	end
	local all = self.plan or plan_of(task.hosts) -- what can't be is said before anybody sets out
	tell(task, "hello", {})
	if not self.plan then
		self.plan = task.where and plan_of(select_hosts(c)) or all
		if c.bad then
			error(c.bad, 0)
		end
	end
	self.output = self.output or {}
	c.plan, c.output = self.plan, self.output
	run_plan(c)
	if c.plan.state == "undoing" then
		undo_all(c)
	end
	conductor.flush(c)
	for _, m in pairs(c.waiting) do
		m:answer({ "end" })
	end
	local results, output = tos.briefcase:folder("RESULTS"), tos.briefcase:folder("OUTPUT")
	for _, host in ipairs(self.plan.order) do
		results:push(row_of(self.plan, host))
		local out = c.output[host]
		if out and next(out) then
			out.host = host
			output:push(out)
		end
	end
	local summary = { state = self.plan.state, why = self.plan.why, wave = self.plan.wave, count = waves.count(self.plan) }
	tos.briefcase.SUMMARY = { summary }
	tell(task, "end", summary)
	-- Those that ask later than this are not waited for: they end when nobody answers.
end

function begin(self)
	local task = tos.briefcase:folder("TASK")[1]
	if type(task) ~= "table" then
		error("this is what 'tos run' sends; it needs the folder TASK that tos run makes", 0)
	end
	if task.role == "worker" then
		worker(self, task)
	else
		conduct(self, task)
	end
end
