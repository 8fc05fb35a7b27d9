-- sweep: on every host of the path, which of the installed packages need a licence that this host
-- has not, and which are older than they may be. What counts is in folder POLICY, one element:
--
--	{ licensed = { PACKAGE = { HOST, ... } },   -- needs a licence; these hosts have one
--	  minimum = { PACKAGE = VERSION } }         -- older is outdated
--
-- A row a host goes into folder RESULTS, each finding into folder FINDINGS. It decides on the spot and
-- takes only what it found along. It changes nothing.

-- ---- versions of Debian packages: EPOCH:UPSTREAM-REVISION (deb-version(7))

-- What sorts before the end of the text (~), letters, then all the rest.
local function order(c)
	if c == "~" then return -1 end
	if c == "" then return 0 end
	if c:match("%a") then return c:byte() end
	return c:byte() + 256
end

-- Parts that are no digits and numbers in turn.
local function part_less(a, b)
	while a ~= "" or b ~= "" do
		local x, y = a:match("^%D*"), b:match("^%D*")
		for i = 1, math.max(#x, #y) do
			local p, q = order(x:sub(i, i)), order(y:sub(i, i))
			if p ~= q then return p < q and -1 or 1 end
		end
		a, b = a:sub(#x + 1), b:sub(#y + 1)
		local m, n = a:match("^%d*"), b:match("^%d*")
		local v, w = tonumber(m) or 0, tonumber(n) or 0
		if v ~= w then return v < w and -1 or 1 end
		a, b = a:sub(#m + 1), b:sub(#n + 1)
	end
	return 0
end

local function split(version)
	local epoch, rest = version:match("^(%d+):(.*)$")
	rest = rest or version
	local upstream, revision = rest:match("^(.*)%-([^-]*)$")
	return tonumber(epoch or 0), upstream or rest, revision or "0"
end

local function older(a, b)
	local e, u, r = split(a)
	local f, v, s = split(b)
	if e ~= f then return e < f end
	local c = part_less(u, v)
	return (c ~= 0 and c or part_less(r, s)) < 0
end

-- ---- what is installed here

local FORMAT = "${Package}\t${Version}\t${db:Status-Status}\n"

local function packages()
	local a, code, text = tos.call("Executor", { "RUN", { program = "/usr/bin/dpkg-query",
		args = { "-W", "-f", FORMAT }, wait = true, capture = 512 * 1024 } }, 30)
	if not a then return nil, code, text end
	if a.code ~= 0 then return nil, "dpkg-query", a.stderr end
	local found, n = {}, 0
	for name, version, status in a.stdout:gmatch("(%S+)\t(%S*)\t(%S+)\n") do
		if status == "installed" then
			found[name] = version
			n = n + 1
		end
	end
	return found, n
end

-- ---- the sweep

local function has(list, name)
	for _, entry in ipairs(list) do
		if entry == name then return true end
	end
	return false
end

local function judge(policy, installed)
	local findings = {}
	for name, hosts in pairs(policy.licensed or {}) do
		if installed[name] and not has(hosts, tos.kernel()) then
			findings[#findings + 1] = { what = "unlicensed", package = name, version = installed[name] }
		end
	end
	for name, least in pairs(policy.minimum or {}) do
		if installed[name] and older(installed[name], least) then
			findings[#findings + 1] =
				{ what = "outdated", package = name, version = installed[name], minimum = least }
		end
	end
	table.sort(findings, function(a, b) return a.what .. a.package > b.what .. b.package end)
	return findings
end

function begin(self)
	local policy = tos.briefcase:folder("POLICY"):get(1)
	local row = { kernel = tos.kernel(), packages = "-", unlicensed = "-", outdated = "-" }
	local installed, n, text = packages()
	if not installed then
		row.findings = ("not known: %s"):format(text or n)
	else
		local names, count = {}, { unlicensed = 0, outdated = 0 }
		for _, f in ipairs(judge(policy, installed)) do
			f.kernel = tos.kernel()
			tos.briefcase:folder("FINDINGS"):push(f)
			names[#names + 1] = f.package
			count[f.what] = count[f.what] + 1
		end
		row.packages, row.unlicensed, row.outdated = n, count.unlicensed, count.outdated
		row.findings = table.concat(names, " ")
	end
	tos.briefcase:folder("RESULTS"):push(row)
	self.hosts = (self.hosts or 0) + 1
end
