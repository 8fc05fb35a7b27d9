-- spread: a carrier goes to many hosts at once, as copies of itself that make copies.
--
-- The hosts are those of the path, or a list. Each member of the family gets a part of them, sends a copy
-- to the first of each share of its part, and works where it is:
--
--	local spread = require "spread"
--	function begin(self)
--		local missed = spread.tree(self, 3)      -- or spread.chain(self, 3)
--		tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), missed = #missed }
--	end
--
-- A host that cannot be reached or refuses costs nobody but itself: whoever was to send a copy there
-- takes its part over. The budgets of the ticket are shared out by the number of hosts, so it needs
-- clones and hops for all of them: --limit clones=N --limit hops=N.
--
-- Each host is visited once, also when kernels die meanwhile: what has been sent out is found again by a
-- run that begins anew, and what was missed is written down before anybody else is asked.

local spread = {}

local CHAIN_MAX = 30 -- a copy of a copy has a longer name each time

local function bad(what, ...)
	error(what:format(...), 3)
end

-- n nearly equal parts of a list, in order; fewer where it is short.
function spread.parts(list, n)
	local parts, from = {}, 1
	n = math.min(n, #list)
	for i = 1, n do
		local to = (#list * i) // n
		parts[i] = table.move(list, from, to, 1, {})
		from = to + 1
	end
	return parts
end

local function count(parts)
	local n = 0
	for _, part in ipairs(parts) do
		n = n + #part
	end
	return n
end

-- What a copy gets that has m of n hosts to see to: its own move, and those that it makes.
local function share(m, n)
	local have, used = tos.limits(), tos.usage()
	local function part(name, least)
		return math.max(math.floor((have[name] - used[name]) * m / (n + 1)), least)
	end
	return { cpu = (have.cpu - used.cpu) * m / (n + 1), sent = part("sent", 0), hops = part("hops", m),
		clones = math.max(math.floor((have.clones - used.clones) * m / n) - 1, m - 1) }
end

-- "a|b": the first that takes it.
local function send(entry, split)
	local code, text = "malformed", "no host"
	for host in entry:gmatch("[^|]+") do
		local name
		name, code, text = tos.clone(host, split)
		if name then
			return name
		end
	end
	return nil, code, text
end

local function hosts_of(hosts)
	local list = {}
	for _, host in ipairs(hosts or tos.path) do
		if type(host) ~= "string" or host == "" then
			bad("a host is a kernel's name, or alternatives such as a|b")
		end
		list[#list + 1] = host
	end
	return list
end

-- The plan of this member, the original's made now. It is plain data in self.spread.
local function plan_of(self, ways, later, hosts)
	local plan = self.spread
	if not plan then
		plan = { todo = hosts_of(hosts), ways = ways, later = later, missed = {} }
		self.spread = plan
	end
	if not plan.parts then
		plan.parts = spread.parts(plan.todo, plan.ways)
		plan.todo = nil
	end
	return plan
end

-- Copies on their way to all that this member has to see to; the rows of those that nobody took.
local function out(self, plan)
	while plan.parts[1] do
		local part, n = plan.parts[1], count(plan.parts)
		local host = table.remove(part, 1)
		-- What the copy finds as its own plan.
		self.spread = { todo = part, ways = plan.later, later = plan.later, missed = {} }
		local name, code, text = send(host, share(#part + 1, n))
		self.spread = plan
		if name then
			table.remove(plan.parts, 1)
		else
			plan.missed[#plan.missed + 1] = { kernel = host, code = code, text = text }
			if #part == 0 then
				table.remove(plan.parts, 1)
			end
			tos.checkpoint()
		end
	end
	tos.path:clear()
	return plan.missed
end

local function check(ways)
	if math.type(ways) ~= "integer" or ways < 1 or ways > 100 then
		bad("in how many ways, 1 to 100?")
	end
end

-- A tree: each member has up to `ways` copies made of it. hosts: default the path.
function spread.tree(self, ways, hosts)
	ways = ways or 3
	check(ways)
	return out(self, plan_of(self, ways, ways, hosts))
end

-- Chains: the original has `ways` copies made, each of these goes on by one copy of itself.
function spread.chain(self, ways, hosts)
	ways = ways or 3
	check(ways)
	if not self.spread and #hosts_of(hosts) > ways * CHAIN_MAX then
		bad("a chain has at most %d hosts: more ways, or a tree", CHAIN_MAX)
	end
	return out(self, plan_of(self, ways, 1, hosts))
end

return spread
