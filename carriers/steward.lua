-- steward: keeps an application running. It stays at its home and has a worker, a clone of itself, on a host
-- for each instance of a program. A worker restarts its program when that has died; a worker of which nothing
-- is heard (its kernel, its host or its link is gone) is replaced on another host. An upgrade is made by all of
-- them, or by none, by the library commit. The application does not know of any of this.
--
--	tos launch steward --briefcase app.json --itinerant --limit clones=1000 --limit lifetime=30d --limit cpu=1h
--
-- APP, one map: { program, args?, env?, limits?, version?, workers, hosts, lost?, pause?, check?, watch?, orders? }
--	program, args  of each instance, for Executor; it gets TOS_WORKER, its number
--	hosts          where instances may be: more than workers, so that there is a place to go to
--	lost           s without a sign of life after which a worker is replaced; default 10
--	pause          s before what has died is started again, doubled each time up to a minute; default 0.2
--	check          arguments with which a new version of the program must end with 0 before it is taken
--	watch          { name, index or from, files?, every?, downgrade? }: where it looks for a newer version by itself,
--	               as the library releases says; each `every` s, default 3600. All hosts fetch it first, what
--	               their policy does not admit ends the matter; then they take it together. downgrade = true: the
--	               newest that is offered, though it be older than what runs
--
--	orders         names of principals who may order it about, as its owner may; default none
--
-- Posts to inbox `steward`: status, stop, look, { upgrade = { program, args, version... } }. They are taken from its owner,
-- and from those of `orders`; everybody else is refused.

local commit = require "commit"
local releases = require "releases"

local BEAT = 1 -- s between two signs of life
local FETCH_S = 300

-- ---- one instance, on its host

local function start(app, n)
	local env = { TOS_WORKER = tostring(n), TOS_VERSION = tostring(app.version) }
	for name, value in pairs(app.env or {}) do
		env[name] = value
	end
	local r, code, text = tos.call("Executor", { "RUN", { program = app.program, args = app.args, env = env, limits = app.limits,
		output = "program" } }, 30)
	if not r then
		tos.log(("worker %d: version %s does not start: %s"):format(n, tostring(app.version), text or code))
		return nil
	end
	tos.log(("worker %d: %s runs, version %s, pid %s"):format(n, type(app.program) == "string" and app.program or app.release.name, tostring(app.version), tostring(r.pid)))
	return r
end

local function stop(program)
	if program then
		tos.call("Executor", { "STOP", { handle = program.handle, after = 5 } }, 20)
	end
end

-- Would that version do here?
local function check(app)
	if not app.check then
		return true
	end
	local r, code, text = tos.call("Executor", { "RUN", { program = app.program, args = app.check, limits = { wall = 20 },
		wait = true } }, 30)
	if r and r.code == 0 then
		return true
	end
	return nil, ("version %s: %s"):format(tostring(app.version), text or code or r.stderr ~= "" and r.stderr or "it does not work here")
end

-- ---- getting a version: it may take minutes, and the program is watched meanwhile

local function fetch_over(w, ok, text)
	local version = w.fetch.version
	w.fetch = nil
	if ok then
		w.has, w.cannot = version, nil
		tos.log(("worker %d: version %s is here"):format(w.n, version))
	else
		w.cannot = { version = version, text = text, until_clock = tos.clock() + 10 }
		tos.log(("worker %d: version %s can't be had: %s"):format(w.n, version, text))
	end
end

local function fetch(w, release)
	local cannot = w.cannot and w.cannot.version == release.version and tos.clock() < w.cannot.until_clock
	if w.fetch or w.has == release.version or cannot then
		return
	end
	w.fetch = { version = release.version, until_clock = tos.clock() + FETCH_S + 10 }
	local request, code, text = releases.ask(release, FETCH_S, "program")
	w.fetch.request = request
	if not request then
		fetch_over(w, false, text or code)
	end
end

-- Download says in the end how it went; where it died itself, time does.
local function fetch_look(w, state)
	if w.fetch and (state == "done" or state == "failed" or tos.clock() > w.fetch.until_clock) then
		local got, code, text = w.fetch.request:await()
		fetch_over(w, got ~= nil, text or code)
	end
end

local function upgrade(w, order)
	local state, result = commit.participant {
		tx = order.tx,
		prepare = function()
			local new = order.app.release
			if new and w.has ~= order.app.version then -- it came in between
				local got, code, text = releases.obtain(new, 30)
				if not got then
					return nil, text or code
				end
				w.has = new.version
			end
			local ok, why = check(order.app)
			return ok and { from = w.app.version, to = order.app.version } or nil, why
		end,
		commit = function()
			stop(w.program)
			local old = w.app.version
			w.app, w.self.app = order.app, order.app
			w.program = start(w.app, w.n)
			w.died = not w.program
			tos.checkpoint()
			return { from = old, to = w.app.version }
		end,
	}
	tos.log(("worker %d: the upgrade to version %s is %s"):format(w.n, tostring(order.app.version), tostring(state)))
	return result
end

local function tell(w)
	return tos.call(w.boss .. "/steward", { { n = w.n, host = tos.kernel(), pid = w.program and w.program.pid,
		restarts = w.restarts, version = w.app.version, has = w.has, cannot = w.cannot } }, BEAT * 5, { name = "beat" })
end

-- What the program wrote, or its end.
local function watch(w, inbox, until_clock)
	local m = inbox:next(math.max(0, until_clock - tos.clock()))
	if not m then
		return
	end
	if m.name == "progress" then
		fetch_look(w, m.data.state)
	elseif m.name == "end" then
		local how = m.data
		if w.program and how.handle and how.handle ~= w.program.handle then
			return -- an older one, which was stopped
		end
		tos.log(("worker %d: the program ended: %s %s"):format(w.n, tostring(how.cause), tostring(how.code or how.signal)))
		w.program, w.died = nil, true
	end
end

local function worker(self)
	self.workers, self.upgrading = nil, nil
	local w = { self = self, n = self.worker.n, boss = self.worker.boss, app = self.app, restarts = self.restarts or 0, died = true }
	local inbox = assert(tos.inbox("program"))
	local pause, again_at = w.app.pause or 0.2, 0
	-- Whoever was away may have been replaced: it asks before it starts anything.
	local word = tell(w)
	while not word do
		tos.sleep(BEAT)
		word = tell(w)
	end
	while word ~= "end" do
		if type(word) == "table" and word.upgrade then
			upgrade(w, word.upgrade)
		elseif type(word) == "table" and word.app then
			w.app, self.app = word.app, word.app
		elseif type(word) == "table" and word.fetch then
			fetch(w, word.fetch)
		end
		fetch_look(w)
		if w.died and w.app.release and w.has ~= w.app.version then
			fetch(w, w.app.release)
			again_at = tos.clock() + BEAT
		elseif w.died and tos.clock() >= again_at then
			w.program = start(w.app, w.n)
			w.died = not w.program
			if self.begun then
				w.restarts = w.restarts + 1
				self.restarts = w.restarts
			end
			self.begun = true
			pause = math.min(w.died and pause * 2 or w.app.pause or 0.2, 60)
			again_at = tos.clock() + pause
		end
		local beat_at = tos.clock() + BEAT
		repeat
			watch(w, inbox, w.died and math.min(beat_at, again_at) or beat_at)
		until tos.clock() >= beat_at or (w.died and tos.clock() >= again_at)
		word = tell(w) -- nil: the steward is away, which is no reason to stop
	end
	stop(w.program)
	tos.briefcase.APP = nil
end

-- ---- the one at home

local steward = {}

-- The host with the fewest workers of those that are not known to be gone.
function steward.pick(c)
	local load, best = {}, nil
	for _, w in pairs(c.workers) do
		load[w.host] = (load[w.host] or 0) + 1
	end
	for _, host in ipairs(c.app.hosts) do
		local away = c.away[host] and tos.clock() < c.away[host]
		if not away and (not best or (load[host] or 0) < (load[best] or 0)) then
			best = host
		end
	end
	return best
end

-- A clone begins with what `self` is now, so what it is to be stands there for a moment.
function steward.place(c, n)
	local old = c.workers[n]
	if old then
		c.away[old.host] = tos.clock() + 3 * c.lost
		c.workers[n] = nil
	end
	local host = steward.pick(c)
	if not host then
		return
	end
	c.self.worker = { n = n, boss = tos.self().name }
	local name, code, text = tos.clone(host, { cpu = c.share })
	c.self.worker = nil
	if not name then
		c.away[host] = tos.clock() + c.lost
		tos.log(("worker %d can't be placed at %s: %s"):format(n, host, text or code))
		return
	end
	c.workers[n] = { name = name, host = host, moves = (old and old.moves or -1) + 1 }
	c.heard[n] = tos.clock() + c.lost -- it is on its way
	if old then
		tos.log(("worker %d was lost at %s, and is now at %s"):format(n, old.host, host))
	else
		tos.log(("worker %d is sent to %s"):format(n, host))
	end
	tos.checkpoint()
end

function steward.on_beat(c, m)
	local d = m.data
	local w = type(d) == "table" and c.workers[d.n]
	if not w or w.name ~= m.sender or c.stopping then
		m:answer({ "end" }) -- it was replaced
		if w and w.name == m.sender then
			c.workers[d.n] = nil
		end
		return
	end
	c.heard[d.n] = tos.clock()
	w.pid, w.restarts, w.version, w.has, w.cannot = d.pid, d.restarts, d.version, d.has, d.cannot
	if c.order and not c.told[d.n] then
		c.told[d.n] = true
		m:answer({ { upgrade = c.order } })
	elseif not c.order and d.version ~= c.app.version then
		m:answer({ { app = c.app } }) -- placed before an upgrade, and away during it
	elseif c.wanted and d.has ~= c.wanted.version then
		m:answer({ { fetch = c.wanted } })
	else
		m:answer({ "ok" })
	end
end

function steward.rows(c)
	local rows = {}
	for n = 1, c.app.workers do
		local w = c.workers[n]
		rows[n] = { worker = n, host = w and w.host, state = not w and (c.stopping and "ended" or "waiting") or w.pid and "running" or "starting", pid = w and w.pid,
			has = w and w.has, restarts = w and w.restarts or 0, moves = w and w.moves or 0, version = w and w.version, carrier = w and w.name }
	end
	return rows
end

-- Everybody has the new version afterwards, or nobody. What was begun is in self: after a crash the same is gone on with.
function steward.agree(c)
	local u = c.self.upgrading
	local app, expect = u.app, u.expect
	local r, code, text = commit.coordinate {
		name = u.name, expect = expect, timeout = 60,
		begun = function(tx)
			c.order, c.told = { tx = tx, app = app }, {}
			local until_clock, told = tos.clock() + 30, 0
			while told < expect and tos.clock() < until_clock do
				steward.step(c, BEAT)
				told = 0
				for n in pairs(c.workers) do
					told = told + (c.told[n] and 1 or 0)
				end
			end
		end,
	}
	c.order = nil
	local state = r and r.state or code
	tos.log(("upgrade from version %s to %s: %s%s"):format(tostring(c.app.version), tostring(app.version), tostring(state),
		r and r.text and ": " .. r.text or text and ": " .. text or ""))
	if state == "committed" then
		c.app, c.self.app = app, app
	end
	for n in pairs(c.workers) do
		c.heard[n] = tos.clock()
	end
	c.self.upgrading = nil
	tos.checkpoint()
	return { state = state, text = r and r.text or text, version = c.app.version }
end

function steward.upgrade(c, new)
	local app = {}
	for k, v in pairs(c.app) do
		app[k] = v
	end
	for k, v in pairs(new) do
		app[k] = v
	end
	app.release = new.release -- none: it is not from where the watch looks
	local expect = 0
	for _ in pairs(c.workers) do
		expect = expect + 1
	end
	c.self.upgrades = (c.self.upgrades or 0) + 1
	c.self.upgrading = { name = ("upgrade-%s-%d"):format(tostring(app.version), c.self.upgrades), app = app, expect = expect }
	tos.checkpoint()
	return steward.agree(c)
end

-- ---- looking for a newer version

-- A line for the log, unless it says what the last one did.
function steward.say(c, text)
	if c.said ~= text then
		c.said = text
		tos.log(text)
	end
end

local function or_later(app, version)
	return app.watch.downgrade and releases.compare(version, app.version) ~= 0 or releases.newer(version, app.version)
end

-- Finds what there is; nothing else. Beats wait meanwhile, and nobody is lost for that.
function steward.look(c)
	local began = tos.clock()
	local found, problems = releases.look(c.app.watch)
	for n, at in pairs(c.heard) do
		c.heard[n] = at + (tos.clock() - began)
	end
	c.look_at = tos.clock() + (c.app.watch.every or 3600)
	local best, text = found[1], nil
	if problems[1] then
		text = ("looking for a new version at %s: %s: %s"):format(problems[1].source, problems[1].code, problems[1].text or "")
	elseif best and not or_later(c.app, best.version) and releases.newer(c.app.version, best.version) then
		text = ("version %s is offered, %s runs: it stays"):format(best.version, tostring(c.app.version))
	end
	if text then
		steward.say(c, text)
	end
	if best and or_later(c.app, best.version) and not (c.failed and c.failed.version == best.version and tos.clock() < c.failed.until_clock) then
		if not c.wanted or c.wanted.version ~= best.version then
			tos.log(("a new version: %s → %s%s"):format(tostring(c.app.version), best.version, best.by and ", signed by " .. best.by or ""))
		end
		c.wanted = best
	end
	return { newest = best and best.version, version = c.app.version, problems = problems }
end

-- It is tried again later, each time after twice as long, up to 16 times the interval.
function steward.give_up(c, text)
	local version, before = c.wanted.version, c.failed
	local pause = before and before.version == version and before.pause * 2 or c.app.watch.every or 3600
	pause = math.min(pause, 16 * (c.app.watch.every or 3600))
	c.failed = { version = version, pause = pause, until_clock = tos.clock() + pause }
	c.wanted, c.said = nil, nil
	steward.say(c, ("version %s is not taken: %s; version %s runs on"):format(version, text, tostring(c.app.version)))
end

-- All are there and have it: then together, or not at all.
function steward.take(c)
	local ready, there = 0, 0
	for n = 1, c.app.workers do
		local w = c.workers[n]
		if w and w.cannot and w.cannot.version == c.wanted.version then
			steward.give_up(c, ("%s: %s"):format(w.host, w.cannot.text))
			w.cannot = nil
			return
		end
		if w and w.pid and tos.clock() - c.heard[n] < 3 * BEAT then
			there = there + 1
			ready = ready + (w.has == c.wanted.version and 1 or 0)
		end
	end
	if there < c.app.workers then
		steward.say(c, ("version %s waits: %d of %d workers are there"):format(c.wanted.version, there, c.app.workers))
	elseif ready == c.app.workers then
		local r = steward.upgrade(c, { program = releases.program(c.wanted), version = c.wanted.version, release = c.wanted })
		if r.state == "committed" then
			c.wanted, c.failed, c.said = nil, nil, nil
		else
			steward.give_up(c, r.text or tostring(r.state))
		end
	end
end

-- owner: of the sender, as our kernel knows it; nil where it does not.
function steward.obeys(c, owner)
	if owner == nil or owner == tos.self().owner then
		return owner ~= nil
	end
	for _, name in ipairs(type(c.app.orders) == "table" and c.app.orders or {}) do
		if name == owner then
			return true
		end
	end
	return false
end

function steward.step(c, wait_s)
	local m = c.inbox:next(wait_s)
	local d = m and m.data
	if not m then
		return
	elseif m.name == "beat" then
		steward.on_beat(c, m)
	elseif not steward.obeys(c, m.owner) then
		-- Whom policy lets post here may be anybody, and this one may do more than most.
		steward.say(c, ("%s does not steer this one"):format(m.owner or "a " .. (m.class or "sender") .. " that did not say whose it is"))
		if m.wants_answer then
			m:refuse("denied", "its owner steers this one, and whom it names in 'orders'")
		end
	elseif d == "status" then
		m:answer({ steward.rows(c) })
	elseif d == "look" and c.app.watch and not c.order then
		m:answer({ steward.look(c) })
	elseif d == "stop" then
		c.stopping = tos.clock() + 3 * c.lost
		m:answer({ "stopping" })
	elseif type(d) == "table" and type(d.upgrade) == "table" and not c.order then
		m:answer({ steward.upgrade(c, d.upgrade) })
	elseif m.wants_answer then
		m:refuse("usage", "this takes status, stop, look and { upgrade = { ... } }")
	end
end

local function stand(self)
	local app = self.app
	local c = { self = self, app = app, workers = self.workers or {}, heard = {}, away = {}, told = {}, lost = app.lost or 10,
		inbox = assert(tos.inbox("steward")) }
	self.workers = c.workers
	c.look_at = app.watch and tos.clock() + math.min(app.watch.every or 3600, 10) -- the workers come first
	c.share = tos.limits().cpu / (4 * app.workers + 4)
	for n in pairs(c.workers) do
		c.heard[n] = tos.clock() -- after a crash of our own everybody gets time to be heard
	end
	if self.upgrading then
		steward.agree(c)
	end
	while not (c.stopping and (next(c.workers) == nil or tos.clock() > c.stopping)) do
		for n = 1, c.stopping and 0 or app.workers do
			if not c.workers[n] or tos.clock() - c.heard[n] > c.lost then
				steward.place(c, n)
			end
		end
		if app.watch and not c.stopping and tos.clock() >= c.look_at then
			steward.look(c)
		end
		if c.wanted and not c.stopping then
			steward.take(c)
		end
		steward.step(c, BEAT / 2)
	end
	for _, row in ipairs(steward.rows(c)) do
		tos.briefcase:folder("RESULTS"):push(row)
	end
end

local function app_of()
	local app = tos.briefcase:folder("APP")[1]
	if type(app) ~= "table" or type(app.program) ~= "string" or math.type(app.workers) ~= "integer" or type(app.hosts) ~= "table" then
		error("folder APP must hold one map with at least program, workers and hosts; the source explains it", 0)
	end
	app.version = app.version or 1
	if app.watch and not (type(app.watch) == "table" and type(app.watch.name) == "string" and (app.watch.index or app.watch.from)) then
		error("watch must have name, and index or from; the library releases explains it", 0)
	end
	return app
end

function begin(self)
	self.app = self.app or app_of()
	if self.worker and tos.self().parent then
		worker(self)
	else
		self.worker = nil
		stand(self)
	end
end
