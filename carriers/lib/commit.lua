-- commit: all of several carriers act, or none. Above the inbox Commit of the carrier's kernel.
--
--	local commit = require "commit"
--
-- One carrier coordinates:
--
--	local r = commit.coordinate { name = "upgrade", expect = 3, begun = function(tx) ... tell them tx ... end }
--	r.state             -- "committed" or "aborted"; r.text says why, r.members what each said
--
-- Each of the others takes part, at the kernel where it is:
--
--	local state = commit.participant {
--		tx = tx,
--		prepare = function(data, dry) return plan end,  -- nil, why: no
--		commit = function(plan) return result end,
--		abort = function(plan, why) end,
--	}
--
-- After a crash begin runs again, and so do these: each handler must do no harm when it is called a
-- second time, also when its first call did a part of its work. commit and abort are called until one
-- call has returned; abort may be called where prepare never was.

local commit = {}

local INBOX, CALL_S, LOOK_S = "commit", 30, 10
local WAITED_S = 4 -- so long somebody surely waits for the answer to PREPARE

local function ask(verb, args, timeout)
	return tos.call("Commit", args, timeout or CALL_S, { name = verb })
end

-- What may be asked again without harm, until somebody answers.
local lost = { unknown = true, ["timed-out"] = true, cancelled = true, full = true, ["no-such-inbox"] = true,
	unreachable = true, store = true }

local function insist(verb, args, until_s)
	local pause = 0.1
	while true do
		local answer, code, text = ask(verb, args)
		if answer or not lost[code] or (until_s and tos.now() > until_s) then
			return answer, code, text
		end
		tos.sleep(pause)
		pause = math.min(pause * 2, 5)
	end
end

local function need(o, what, name, kind)
	if type(o[name]) ~= kind then
		error(("%s needs %s, a %s"):format(what, name, kind), 3)
	end
end

-- ---- taking part

local function prepare(o, said)
	local good, plan, why
	if o.prepare then
		good, plan, why = pcall(o.prepare, said.data, said.dry)
	else
		good, plan = true, true
	end
	local yes = good and plan ~= nil and plan ~= false
	if plan == true then
		plan = nil
	end
	local args = { tx = o.tx, yes = yes }
	if yes then
		args.plan = plan
	else
		args.text = tostring(not good and plan or why or "no")
	end
	return args
end

-- The vote is the answer to PREPARE, or a call of its own: from a kernel that knows only those, and where preparing took
-- long. Who is asked again says the same again.
local function vote(o, mail, voted)
	local since, said = tos.now(), mail.data
	if not said.answer then
		mail:answer(true)
	end
	voted.args = voted.args or prepare(o, said)
	if said.answer and tos.now() - since < WAITED_S and mail:answer(voted.args) then
		return true
	end
	return insist("VOTE", voted.args)
end

-- Acts on the decision, and says so until it is known.
local function act(o, state, plan, text)
	local result
	if state == "committed" then
		result = o.commit and o.commit(plan)
	elseif o.abort then
		o.abort(plan, text)
	end
	local answer, code, why = insist("DONE", { tx = o.tx, result = result })
	if not answer and code ~= "not-found" then
		return nil, code, why
	end
	return state, state == "committed" and result or text
end

local decided = { COMMIT = "committed", ABORT = "aborted" }

local function join(o)
	local known, code, text = insist("JOIN", { tx = o.tx, inbox = o.inbox or INBOX }, tos.now() + (o.timeout or 60))
	if known then
		return known
	elseif code == "aborted" or code == "not-found" then
		-- Whoever had said yes here would be known: nothing was committed with this carrier.
		return { state = "aborted", text = text }
	end
	return nil, code, text
end

local function take_part(o, inbox)
	local known, code, text = join(o)
	local voted = {}
	while known do
		if known.state == "committed" or known.state == "aborted" then
			return act(o, known.state, known.plan, known.text)
		end
		local mail = inbox:next(LOOK_S)
		local said = mail and mail.data
		if not mail then
			known, code, text = join(o) -- the extension may have been replaced meanwhile
		elseif type(said) == "table" and said.tx == o.tx then
			if decided[mail.name] then
				mail:answer(true)
				return act(o, decided[mail.name], said.plan, said.text)
			elseif mail.name == "PREPARE" then
				local answer, why, sentence = vote(o, mail, voted)
				if not answer and why ~= "committed" and why ~= "aborted" then
					return nil, why, sentence
				end
			end
		else
			mail:refuse("not-found", "another transaction's")
		end
	end
	return nil, code, text
end

-- Returns "committed" and what the handler commit returned, or "aborted" and why; or nil, code, text where it
-- could not join.
function commit.participant(o)
	need(o, "commit.participant", "tx", "string")
	local inbox, code, text = tos.inbox(o.inbox or INBOX)
	if not inbox then
		return nil, code, text
	end
	local state, result, why = take_part(o, inbox)
	inbox:close()
	return state, result, why
end

-- ---- coordinating

local function status(tx, text)
	local r = insist("STATUS", { tx = tx })
	if r then
		r.text = r.text or text
	end
	return r
end

local function rehearse(o, tx)
	local r, code, text = ask("PREPARE", { tx = tx, expect = o.expect, data = o.data, dry = true }, o.timeout + 10)
	return r or status(tx, text) or nil, code, text
end

local function decide(o, tx)
	local args = { tx = tx, expect = o.expect, data = o.data, wait = o.wait or "done" }
	while true do
		local r, code, text = ask("COMMIT", args, o.timeout + (o.patience or 60))
		if r then
			return r
		end
		r = status(tx, text)
		if not r or r.state == "committed" or r.state == "aborted" or not lost[code] then
			return r, code, text
		end
		tos.sleep(0.2)
	end
end

-- Returns { tx, state, text, members = { { carrier, kernel, vote, plan, text, told, done, result }... } }, or nil, code,
-- text where nothing was begun. With dry = true everybody prepares and says what it would do, and all is
-- aborted: r.ready says whether all would have voted yes.
function commit.coordinate(o)
	need(o, "commit.coordinate", "name", "string")
	o.timeout = o.timeout or 60
	local begun, code, text = insist("BEGIN", { name = o.name, phases = o.phases, timeout_ms = math.floor(o.timeout * 1000),
		admit = o.admit })
	if not begun then
		return nil, code, text
	end
	if begun.state == "open" and o.begun then
		o.begun(begun.tx)
	end
	local r
	if o.dry then
		r, code, text = rehearse(o, begun.tx)
	else
		r, code, text = decide(o, begun.tx)
	end
	if not r then
		return nil, code, text
	end
	r.ready = #r.members > 0
	for _, m in ipairs(r.members) do
		r.ready = r.ready and m.vote == "yes"
	end
	return r
end

return commit
