-- releases: which versions of a program there are, which of two is newer, and how a host gets one.
--
--	local releases = require "releases"
--	local watch = { name = "agent", index = "https://dl.example.org/pkgs/index" }
--	local found, problems = releases.look(watch)     -- the newest first
--	if found[1] and releases.newer(found[1].version, running) then
--		assert(releases.obtain(found[1]))            -- on each host
--		tos.call("Executor", { "RUN", { program = releases.program(found[1]) } }, 30)
--
-- Nothing that comes from outside is believed because of where it lies: an index holds statements that
-- an officer has signed (tos content sign, tos content index), and each host's kernel looks at the
-- signature before a row of it is seen here. What a host takes in and runs its own policy decides.
--
-- watch, plain data:
--	name   what the program is called in the statements (tos content sign --name)
--	index  a URL at a place that the kernel's Download lists
--	files  where the files are: a URL in which {sha256}, {name}, {version} and {machine} are
--	       replaced; default {sha256} beside the index
--	from   a kernel: what is admitted there is offered here, too, and comes from its store
--	kind   default "program"

local releases = {}

-- ---- which is newer

-- "1.10rc2" is { 1, 10, "rc", 2 }: runs of digits and of letters; what is between only parts them.
local function parts(version)
	local list, at = {}, 1
	version = tostring(version)
	while at <= #version and #list < 64 do
		local from, to = version:find("^%d+", at)
		if not from then
			from, to = version:find("^%a+", at)
		end
		if from then
			list[#list + 1] = version:sub(from, to)
		end
		at = (to or at) + 1
	end
	return list
end

-- A word (a beta) is less than nothing more, nothing more is less than a number.
local function rank(part)
	return not part and 1 or part:find("^%d") and 2 or 0
end

local function order(a, b)
	if rank(a) ~= rank(b) then
		return rank(a) < rank(b) and -1 or 1
	elseif rank(a) == 2 then
		a, b = a:gsub("^0+", ""), b:gsub("^0+", "")
		if #a ~= #b then
			return #a < #b and -1 or 1
		end
	end
	return a == b and 0 or a < b and -1 or 1
end

-- -1, 0 or 1: 1.9 < 1.10 < 1.10.1, 2.0beta2 < 2.0rc1 < 2.0, 01 = 1.
function releases.compare(a, b)
	local left, right = parts(a), parts(b)
	for i = 1, math.max(#left, #right) do
		if left[i] or right[i] then
			local sign = order(left[i], right[i])
			if sign ~= 0 then
				return sign
			end
		end
	end
	return 0
end

function releases.newer(a, b)
	return releases.compare(a, b) > 0
end

-- ---- what there is

local function hex(digest)
	return (digest:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function url_of(watch, row)
	local url = watch.files or watch.index:match("^(.*/)") .. "{sha256}"
	return (url:gsub("{(%w+)}", { sha256 = hex(row.digest), name = row.name, version = row.version, machine = row.machine }))
end

-- Where a machine is named twice for a version the later row counts.
local function add(found, watch, row, source)
	if row.name ~= watch.name or row.kind ~= (watch.kind or "program") or type(row.version) ~= "string" or row.version == "" then
		return
	end
	local r = found[row.version]
	if not r then
		r = { name = row.name, version = row.version, builds = {} }
		found[row.version], found[#found + 1] = r, r
	end
	r.builds[row.machine] = { sha256 = hex(row.digest), machine = row.machine, kind = row.kind, url = source.url and source.url(row),
		statement = row.statement, by = row.by }
end

local function look_at_index(watch, found, problems)
	local r, code, text = tos.call("Download", { url = watch.index }, 60, { name = "INDEX" })
	if not r then
		problems[#problems + 1] = { source = watch.index, code = code, text = text }
		return
	end
	for _, row in ipairs(r.rows) do
		add(found, watch, row, { url = function(row) return url_of(watch, row) end })
	end
	if r.refused[1] then
		problems[#problems + 1] = { source = watch.index, code = "untrusted", text = ("%d of its statements count for nothing here, the first: %s"):format(
			#r.refused, r.refused[1].text) }
	end
end

local function look_at_kernel(watch, found, problems)
	local r, code, text = tos.call(watch.from .. "/Content", {}, 30, { name = "ADMITTED" })
	if not r then
		problems[#problems + 1] = { source = watch.from, code = code, text = text }
		return
	end
	for _, row in ipairs(r.admitted) do
		if row.here then
			add(found, watch, row, { url = function(row) return ("tos://%s/sha256/%s"):format(watch.from, hex(row.digest)) end })
		end
	end
end

-- A list of { name, version, builds = { machine = build } }, the newest first, and one of { source, code, text }
-- for each source that could not be asked, or not be believed.
function releases.look(watch)
	local found, problems = {}, {}
	if type(watch) ~= "table" or type(watch.name) ~= "string" or not (watch.index or watch.from) then
		error("releases.look needs { name, index or from }", 2)
	end
	if watch.from then
		look_at_kernel(watch, found, problems)
	end
	if watch.index then
		look_at_index(watch, found, problems)
	end
	local list = table.move(found, 1, #found, 1, {})
	table.sort(list, function(a, b) return releases.newer(a.version, b.version) end)
	return list, problems
end

-- ---- how this host gets one

local function machine()
	local os = tos.call("Monitor", { "os" }, 5)
	return os and os.machine
end

-- The build for this host; or nil, code, text.
local function build_here(release)
	local build = release.builds[machine() or "any"] or release.builds.any
	if build then
		return build
	end
	local for_ = {}
	for name in pairs(release.builds) do
		for_[#for_ + 1] = name
	end
	table.sort(for_)
	return nil, "not-found", ("%s %s is for %s"):format(release.name, release.version, table.concat(for_, ", "))
end

-- Begins to get it: a request whose answer is awaited later, or nil, code, text. progress: an inbox of the carrier's own, which
-- gets Download's folders `progress`; timeout in s, default 300.
function releases.ask(release, timeout, progress)
	local build, code, text = build_here(release)
	if not build then
		return nil, code, text
	end
	local what = { url = build.url, sha256 = build.sha256, name = release.name, version = release.version, kind = build.kind,
		machine = build.machine, progress = progress }
	if build.statement then
		what.statement = tos.bytes(build.statement)
	else
		what.admit = true
	end
	return tos.ask("Download", what, timeout or 300, { name = "GET" })
end

-- True once the file is in this host's store and admitted under this host's policy; or nil, code, text.
function releases.obtain(release, timeout)
	local request, code, text = releases.ask(release, timeout)
	if not request then
		return nil, code, text
	end
	local got
	got, code, text = request:await()
	if not got then
		return nil, code, text
	end
	return true
end

-- What Executor is told to run: for each machine its digest.
function releases.program(release)
	local program = {}
	for name, build in pairs(release.builds) do
		program[name] = "sha256:" .. build.sha256
	end
	return program
end

return releases
