-- waves: a change goes over many hosts a few at a time, and stops when too much fails.
--
-- A plan is plain data, so that it travels in `self` and is in every checkpoint; the functions here
-- are the rules. Nothing in here waits, posts or knows what the change is: that is the caller's.
--
--	local waves = require "waves"
--	self.plan = self.plan or waves.new(hosts, { waves = "1,10%,100%", max_fail = "10%" })
--	waves.run(self.plan, { change = upgrade, undo = downgrade })
--
-- States of a plan: ready -> running -> ready ... -> finished; paused (until resume), stopped (too much
-- failed, or stop() was called; retry() goes on), undoing -> undone.
-- States of a host: waiting, running, done, failed, down, undone, stuck (it could not be undone).

local waves = {}

local HOSTS_MAX = 100000

local function bad(what, ...)
	error(what:format(...), 3)
end

-- "10%" of n, rounded up; "3" or 3 as it is. nil: not an amount.
local function amount(text, n)
	local percent = tostring(text):match("^%s*(%d+%.?%d*)%%%s*$")
	if percent then
		percent = tonumber(percent)
		return percent <= 100 and math.ceil(n * percent / 100 - 1e-9) or nil
	end
	return math.tointeger(tonumber(text))
end

-- "1,10%,100%" over n hosts: { 1, 5, ... }. The last is repeated until all hosts are done.
function waves.sizes(text, n)
	local sizes = {}
	for word in tostring(text or "100%"):gmatch("[^,]+") do
		local size = amount(word, n)
		if not size or size < 0 or (size == 0 and n > 0) then
			bad("a wave is a number of hosts or a share such as 10%%, not %q", word)
		end
		sizes[#sizes + 1] = size
	end
	if #sizes == 0 or #sizes > 1000 then
		bad("waves are written as in 1,10%%,100%%, not %q", tostring(text))
	end
	return sizes
end

-- hosts: names, in the order in which they are to be taken. options:
--	waves         "1,10%,100%": sizes, default all at once
--	max_fail      N: so many may fail in all; "N%": so much of a wave. One more stops it. Default 0
--	retries       how often one that failed is tried again within its wave; default 0
--	alternatives  { host = { other, ... } }: whom to take where a host is down
--	undo          true: what was changed is undone by itself when too much fails
--	pause         true: pause after each wave; a number n: after the first n waves
function waves.new(hosts, options)
	options = options or {}
	if type(hosts) ~= "table" or #hosts > HOSTS_MAX then
		bad("a plan needs a list of at most %d hosts", HOSTS_MAX)
	end
	local plan = {
		state = "ready", wave = 0, order = {}, hosts = {}, again = {},
		sizes = waves.sizes(options.waves, #hosts),
		max_fail = tostring(options.max_fail or 0), retries = options.retries or 0,
		pause = options.pause, undo = options.undo or false,
	}
	if not amount(plan.max_fail, 100) then
		bad("how much may fail is a number of hosts or a share such as 10%%, not %q", plan.max_fail)
	end
	for _, host in ipairs(hosts) do
		if type(host) ~= "string" then
			bad("a host is named by a string, not by a %s", type(host))
		end
		if not plan.hosts[host] then
			local others = options.alternatives and options.alternatives[host] or {}
			plan.order[#plan.order + 1] = host
			plan.hosts[host] = { state = "waiting", at = host, tries = 0, others = { table.unpack(others) } }
		end
	end
	return plan
end

local function in_state(plan, ...)
	for _, state in ipairs { ... } do
		for _, host in ipairs(plan.order) do
			if plan.hosts[host].state == state then
				return true
			end
		end
	end
	return false
end

-- How many hosts are in each state; and `all`.
function waves.count(plan)
	local n = { all = #plan.order }
	for _, host in ipairs(plan.order) do
		local state = plan.hosts[host].state
		n[state] = (n[state] or 0) + 1
	end
	return n
end

-- The hosts in one of these states, in order.
function waves.list(plan, ...)
	local wanted, out = {}, {}
	for _, state in ipairs { ... } do
		wanted[state] = true
	end
	for _, host in ipairs(plan.order) do
		if wanted[plan.hosts[host].state] then
			out[#out + 1] = host
		end
	end
	return out
end

-- Where it is done: the host itself, or the alternative that took its place.
function waves.at(plan, host)
	return plan.hosts[host].at
end

local function take(plan, host)
	local h = plan.hosts[host]
	h.state, h.wave, h.tries = "running", plan.wave, h.tries + 1
	return host
end

-- The hosts to begin with now: the next wave, or those of this one that are tried again. nil and the
-- plan's state where there is nothing to begin.
function waves.next(plan)
	local out = {}
	if plan.state == "running" and #plan.again > 0 then
		for _, host in ipairs(plan.again) do
			out[#out + 1] = take(plan, host)
		end
		plan.again = {}
		return out
	end
	if plan.state ~= "ready" then
		return nil, plan.state
	end
	local waiting = waves.list(plan, "waiting")
	if #waiting == 0 then
		plan.state = "finished"
		return nil, plan.state
	end
	plan.wave = plan.wave + 1
	plan.state = "running"
	for i = 1, math.min(#waiting, plan.sizes[math.min(plan.wave, #plan.sizes)]) do
		out[i] = take(plan, waiting[i])
	end
	return out
end

local function too_much_failed(plan)
	local in_wave, failed_in_wave, failed = 0, 0, 0
	for _, host in ipairs(plan.order) do
		local h = plan.hosts[host]
		local bad_one = h.state == "failed" or h.state == "down"
		failed = failed + (bad_one and 1 or 0)
		if h.wave == plan.wave then
			in_wave = in_wave + 1
			failed_in_wave = failed_in_wave + (bad_one and 1 or 0)
		end
	end
	local percent = plan.max_fail:match("^%s*(%d+%.?%d*)%%")
	if percent then
		return failed_in_wave * 100 > in_wave * tonumber(percent)
	end
	return failed > amount(plan.max_fail, 0)
end

-- The wave is over.
local function settle(plan)
	local pause = plan.pause == true or (type(plan.pause) == "number" and plan.wave <= plan.pause)
	if plan.state ~= "running" then
		return
	end
	if plan.wanted == "stop" or too_much_failed(plan) then
		plan.why = plan.wanted == "stop" and "stopped" or "too much failed"
		plan.state = "stopped"
		if plan.undo then
			waves.undo(plan)
		end
	elseif not in_state(plan, "waiting") then
		plan.state = "finished"
	else
		plan.state = (plan.wanted == "pause" or pause) and "paused" or "ready"
	end
	plan.wanted = nil
end

-- What became of a host that next() gave. result: true, or a table { ok, code, text, down, ... } that is
-- kept; false or nil: it failed. `down`: the host was not reached, so nothing was changed there.
function waves.report(plan, host, result)
	local h = plan.hosts[host]
	if not h or h.state ~= "running" then
		bad("%s is not under way in this plan", tostring(host))
	end
	local r = type(result) == "table" and result or { ok = result and true or false }
	h.result = r
	if r.ok then
		h.state = "done"
	elseif r.down and #h.others > 0 then
		h.at, h.state, h.tries = table.remove(h.others, 1), "waiting", 0
		plan.again[#plan.again + 1] = host
	elseif h.tries <= plan.retries and plan.wanted ~= "stop" then
		h.state = "waiting"
		plan.again[#plan.again + 1] = host
	else
		h.state = r.down and "down" or "failed"
	end
	if #plan.again == 0 and not in_state(plan, "running") then
		settle(plan)
	end
	return h.state
end

-- Wait behind the present wave, or before the next one; and go on.
function waves.pause(plan)
	if plan.state == "ready" then
		plan.state = "paused"
	elseif plan.state == "running" then
		plan.wanted = "pause"
	end
	return plan.state
end

function waves.resume(plan)
	if plan.state == "paused" then
		plan.state = "ready"
	end
	if plan.wanted == "pause" then
		plan.wanted = nil
	end
	return plan.state
end

-- Begin nothing more. What is under way is still to be reported.
function waves.stop(plan)
	if plan.state == "running" then
		plan.wanted = "stop"
	elseif plan.state == "ready" or plan.state == "paused" then
		plan.state, plan.why = "stopped", "stopped"
	end
	return plan.state
end

-- Only what failed or was down, and what has not been begun: with the next wave's size.
function waves.retry(plan)
	if plan.state ~= "stopped" and plan.state ~= "finished" and plan.state ~= "paused" then
		return nil, "wrong-state", "a plan that is " .. plan.state .. " can't be retried"
	end
	local n = 0
	for _, host in ipairs(plan.order) do
		local h = plan.hosts[host]
		if h.state == "failed" or h.state == "down" then
			h.state, h.tries, h.wave, n = "waiting", 0, nil, n + 1
		end
	end
	plan.state, plan.why = in_state(plan, "waiting") and "ready" or "finished", nil
	return n
end

-- After a crash: what was under way then is begun again, in the same wave.
function waves.recover(plan)
	local n = 0
	for _, host in ipairs(plan.order) do
		local h = plan.hosts[host]
		if h.state == "running" then
			h.state, n = "waiting", n + 1
			plan.again[#plan.again + 1] = host
		end
	end
	if plan.state == "running" and #plan.again == 0 then
		settle(plan)
	end
	return n
end

-- The hosts to undo, the last one changed first: all that were begun. Those that failed may be half
-- changed; those that were down are not touched.
function waves.undo(plan)
	local out = {}
	if plan.state == "running" then
		return nil, "wrong-state", "stop it first: hosts are under way"
	end
	plan.state = "undoing"
	for i = #plan.order, 1, -1 do
		local state = plan.hosts[plan.order[i]].state
		if state == "done" or state == "failed" then
			out[#out + 1] = plan.order[i]
		end
	end
	if #out == 0 then
		plan.state = "undone"
	end
	return out
end

-- A host that undo() gave was undone, or not.
function waves.undone(plan, host, ok)
	local h = plan.hosts[host]
	if plan.state ~= "undoing" or not h or (h.state ~= "done" and h.state ~= "failed") then
		bad("%s is not being undone", tostring(host))
	end
	h.state = ok and "undone" or "stuck"
	if not in_state(plan, "done", "failed") then
		plan.state = "undone"
	end
	return h.state
end

-- Run a plan until it is finished, paused, stopped or undone; its state. how:
--	change(hosts, plan)  change these (at plan.hosts[h].at); { host = result as of report() }
--	undo(hosts, plan)    undo these; { host = true | false }; needed where the plan has undo
--	between(plan)        after each wave; may say "pause", "stop", or how many seconds to wait
--	save(plan)           after each step: where a checkpoint belongs
function waves.run(plan, how)
	local save = how.save or function() end
	waves.recover(plan)
	while true do
		local hosts = waves.next(plan)
		if not hosts then
			break
		end
		save(plan)
		local results = how.change(hosts, plan) or {}
		for _, host in ipairs(hosts) do
			waves.report(plan, host, results[host])
		end
		save(plan)
		local word = plan.state == "ready" and how.between and how.between(plan)
		if word == "pause" then
			waves.pause(plan)
		elseif word == "stop" then
			waves.stop(plan)
		elseif type(word) == "number" then
			tos.sleep(word)
		end
	end
	if plan.state == "undoing" then
		local hosts = waves.undo(plan)
		local results = #hosts > 0 and how.undo and how.undo(hosts, plan) or {}
		for _, host in ipairs(hosts) do
			waves.undone(plan, host, results[host])
		end
		save(plan)
	end
	return plan.state
end

return waves
