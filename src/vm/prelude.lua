-- The carrier's API, above the primitives of sys.c. Runs once in each carrier's state before its
-- code; returns boot. What the objects hold lies in userdata (sys.box), and every library function
-- is a local, so that nothing a carrier changes in its globals changes what happens here.
-- doc/guide/carrier-api.md is the reference.
local sys = ...
local error, ipairs, next, pairs, select, setmetatable, tostring, type, rawequal =
	error, ipairs, next, pairs, select, setmetatable, tostring, type, rawequal
local concat, sort, pack, unpack = table.concat, table.sort, table.pack, table.unpack
local find, format, gsub, sub = string.find, string.format, string.gsub, string.sub
local floor, maxint, mtype, huge = math.floor, math.maxinteger, math.type, math.huge
local box, unbox, encode, decode = sys.box, sys.unbox, sys.encode, sys.decode
local stores, files, null, seals = sys.stores, sys.files, sys.null, sys.seals
local G = _G

local ONEWAY, ANSWER, FAILURE = 0, 2, 3
local CALL_TIMEOUT, INBOX_TIMEOUT = 30, 60 -- s, where none is given: every wait has a deadline
local WAIT_MAX = 366 * 86400

local tos = {}

-- ---- arguments

local function bad(level, what, ...)
	error(format(what, ...), level + 2)
end

local function check_name(name, level)
	if type(name) ~= "string" then
		bad(level + 1, "a folder's name must be a string, not a %s", type(name))
	end
	if #name > 128 or find(name, "[^\x20-\x7e]") then
		bad(level + 1, "a folder's name is at most 128 printable ASCII characters")
	end
	return name
end

local function check_dest(dest, level)
	if type(dest) ~= "string" or #dest < 1 or #dest > 128 or find(dest, "[^\x21-\x7e]") then
		bad(level + 1, "a destination is a string like \"Echo\" or \"host1/Echo\"")
	end
	return dest
end

-- seconds -> ms
local function check_time(s, default, level)
	if s == nil then
		s = default
	end
	if type(s) ~= "number" or s ~= s or s < 0 then
		bad(level + 1, "a time must be a number of seconds, 0 or more")
	end
	if s > WAIT_MAX then
		s = WAIT_MAX
	end
	return floor(s * 1000 + 0.5)
end

local function to_element(value, what, level)
	local e, why = encode(value, what)
	if not e then
		error(why, level + 1)
	end
	return e
end

-- ---- folders: a store is {first, last, bytes, [i] = encoded element}

local function store_new()
	return { first = 1, last = 0, bytes = 0 }
end

local function store_add(s, element)
	s[s.last + 1] = element
	s.last = s.last + 1
	s.bytes = s.bytes + #element
end

local function store_take(s, i)
	local element = s[i]
	s[i] = nil
	s.bytes = s.bytes - #element
	return decode(element)
end

local function store_clear(s)
	for i = s.first, s.last do
		s[i] = nil
	end
	s.first, s.last, s.bytes = 1, 0, 0
end

-- What the owner sealed stays, what is append-only grows; the kernel would take nothing else.
local function store_keep(s, what, level)
	local seal = s.seal
	if seal == "sealed" then
		error(format("folder %q is sealed by its owner", s.name), level + 2)
	elseif seal == "append" and what ~= "push" then
		error(format("folder %q is append-only: its owner lets it grow and nothing else", s.name), level + 2)
	end
	return s
end

local function store_values(s)
	local out = {}
	for i = s.first, s.last do
		out[i - s.first + 1] = decode(s[i])
	end
	return out
end

local folder_meta = {}
local F = {} -- methods of folders
local P = {} -- more methods of the path

local function raw_store(f)
	return unbox(f, folder_meta)
end

local function store_of(f, level)
	local s = unbox(f, folder_meta)
	if not s then
		bad((level or 1) + 1, "this needs a folder; call it with a colon, as in folder:push(x)")
	end
	if s.gone then
		bad((level or 1) + 1, "the folder is no longer in the briefcase")
	end
	return s
end

-- The path holds texts only: the kernel carries them, Mobility reads them.
local function folder_element(s, value)
	if s.is_path and (type(value) ~= "string" or not sys.utf8(value)) then
		error("an entry of the path is a text", 3)
	end
	local e = to_element(value, "the element", 3) -- no tail call: the error counts levels
	return e
end

-- The i-th element, encoded, or nothing.
local function folder_at(s, i)
	return mtype(i) == "integer" and i >= 1 and i <= s.last - s.first + 1 and s[s.first + i - 1] or nil
end

-- Puts an element in the place of the i-th or behind the last.
local function folder_put(s, i, element)
	local n = s.last - s.first + 1
	if mtype(i) ~= "integer" or i < 1 or i > n + 1 then
		error(format("a folder of %d elements has no place %s", n, tostring(i)), 3)
	end
	if i == n + 1 then
		store_add(s, element)
	else
		local at = s.first + i - 1
		s.bytes = s.bytes - #s[at] + #element
		s[at] = element
	end
end

local function folder_of(s)
	local f = s.object
	if not f then
		f = box(s, folder_meta)
		s.object = f
	end
	return f
end

function F.push(f, ...)
	local s = store_keep(store_of(f), "push", 1)
	for i = 1, select("#", ...) do
		store_add(s, folder_element(s, (select(i, ...))))
	end
	return f
end
F.enqueue = F.push

function F.pop(f)
	local s = store_keep(store_of(f), "pop", 1)
	if s.first > s.last then
		return nil
	end
	local value = store_take(s, s.last)
	s.last = s.last - 1
	return value
end

function F.dequeue(f)
	local s = store_keep(store_of(f), "dequeue", 1)
	if s.first > s.last then
		return nil
	end
	local value = store_take(s, s.first)
	s.first = s.first + 1
	return value
end

function F.get(f, i)
	local s = store_of(f)
	if i == nil then
		return store_values(s)
	end
	local element = folder_at(s, i)
	if element then
		return decode(element)
	end
	return nil
end

function F.set(f, i, value)
	local s = store_of(f)
	store_keep(s, i == s.last - s.first + 2 and "push" or "set", 1)
	if type(i) == "table" and value == nil then -- all of it
		local new = store_new()
		for _, v in ipairs(i) do
			store_add(new, folder_element(s, v))
		end
		store_clear(s)
		for j = 1, new.last do
			store_add(s, new[j])
		end
		return f
	end
	folder_put(s, i, folder_element(s, value))
	return f
end

function F.clear(f)
	store_clear(store_keep(store_of(f), "clear", 1))
	return f
end

function F.bytes(f)
	return store_of(f).bytes
end

function F.name(f)
	return store_of(f).name or ""
end

-- nil, "sealed" or "append": what its owner lets be done with it
function F.seal(f)
	return store_of(f).seal
end

function P.next(f)
	local s = store_of(f)
	return s.first <= s.last and decode(s[s.first]) or nil
end

function folder_meta.__len(f)
	local s = store_of(f)
	return s.last - s.first + 1
end

function folder_meta.__index(f, k)
	if mtype(k) == "integer" then
		local element = folder_at(store_of(f), k)
		if element then
			return decode(element)
		end
		return nil
	end
	return F[k] or raw_store(f).is_path and P[k] or nil
end

function folder_meta.__newindex(f, k, v)
	local s = store_of(f)
	if v == nil then
		error("an element can't be nil; take it out with pop or dequeue, or use tos.null", 2)
	end
	store_keep(s, k == s.last - s.first + 2 and "push" or "set", 1)
	folder_put(s, k, folder_element(s, v))
end

local function folder_step(f, i)
	local s = store_of(f)
	if i < s.last - s.first + 1 then
		return i + 1, decode(s[s.first + i])
	end
end

function folder_meta.__pairs(f)
	return folder_step, f, 0
end

function folder_meta.__tostring(f)
	local s = raw_store(f)
	return format("folder %q (%d elements, %d bytes)", s.name or "", s.last - s.first + 1, s.bytes)
end
folder_meta.__name = "folder"
folder_meta.__metatable = "folder"

-- tos.folder("NAME", element...) or tos.folder{ name = "NAME", element... }: one to post
function tos.folder(name, ...)
	local s = store_new()
	if type(name) == "table" then
		s.name = check_name(name.name or "", 1)
		for _, v in ipairs(name) do
			store_add(s, to_element(v, "the element", 2))
		end
	else
		s.name = check_name(name == nil and "" or name, 1)
		for i = 1, select("#", ...) do
			store_add(s, to_element((select(i, ...)), "the element", 2))
		end
	end
	return box(s, folder_meta)
end

-- ---- the path and the code are views on reserved folders

local path_store = sys.path
path_store.is_path, path_store.name = true, "PATH"
tos.path = folder_of(path_store)

local code_meta = { __name = "folder", __metatable = "folder" }
local C = {}
local code_names = {}
for name in pairs(files) do
	code_names[#code_names + 1] = name
end
sort(code_names)

function C.get(_, i)
	local name = code_names[i]
	return name and { name = name, bytes = #files[name] }
end
function C.read(_, name)
	return files[name]
end
function C.bytes()
	local n = 0
	for _, content in pairs(files) do
		n = n + #content
	end
	return n
end
function C.name()
	return "CODE"
end
for _, verb in ipairs { "push", "pop", "enqueue", "dequeue", "set", "clear" } do
	C[verb] = function()
		error("the folder CODE is read-only: it is what the author signed", 2)
	end
end
function code_meta.__index(f, k)
	if mtype(k) == "integer" then
		return C.get(f, k)
	end
	return C[k]
end
code_meta.__newindex = C.set
function code_meta.__len()
	return #code_names
end
function code_meta.__pairs(f)
	return function(_, i)
		local e = C.get(f, i + 1)
		if e then
			return i + 1, e
		end
	end, f, 0
end
function code_meta.__tostring()
	return format("folder \"CODE\" (%d files, read-only)", #code_names)
end
local code = box({}, code_meta)

local reserved = { PATH = tos.path, HOST = tos.path, CODE = code, ["X-CODE"] = code }

-- ---- the briefcase

local B = {}
local briefcase_meta = { __name = "briefcase", __metatable = "briefcase" }

for name, s in pairs(stores) do
	s.name, s.seal = name, seals[name]
end

local function briefcase_find(name)
	if reserved[name] then
		return reserved[name]
	end
	local s = stores[name]
	return s and folder_of(s)
end

local function store_make(name)
	local s = store_new()
	s.name, s.seal = name, seals[name]
	stores[name] = s
	return s
end

function B.folder(_, name)
	check_name(name, 1)
	return briefcase_find(name) or folder_of(store_make(name))
end

function B.create(_, name)
	check_name(name, 1)
	if reserved[name] then
		error(format("the folder name %q is reserved", name), 2)
	end
	if stores[name] then
		error(format("there is a folder %q already", name), 2)
	end
	return folder_of(store_make(name))
end

local function store_drop(name)
	local s = stores[name]
	if not s then
		return false
	end
	s.gone = true
	stores[name] = nil
	return true
end

function B.delete(_, name)
	check_name(name, 1)
	if reserved[name] then
		error(format("the folder %q can't be deleted", name), 2)
	end
	if stores[name] then
		store_keep(stores[name], "delete", 1)
	end
	return store_drop(name)
end

function B.has(_, name)
	return reserved[name] ~= nil or stores[name] ~= nil
end

function B.names()
	local names = {}
	for name in pairs(stores) do
		names[#names + 1] = name
	end
	sort(names)
	return names
end

function B.bytes()
	local n = 0
	for name, s in pairs(stores) do
		n = n + #name + s.bytes
	end
	return n
end

function B.archive()
	return sys.archive()
end

function B.unarchive(_, bytes)
	if type(bytes) ~= "string" then
		error("unarchive needs the string that archive gave", 2)
	end
	local new, code_word, text = sys.unarchive(bytes)
	if not new then
		return nil, code_word, text
	end
	for _, s in pairs(stores) do
		store_keep(s, "unarchive", 1)
	end
	for name in pairs(stores) do
		store_drop(name)
	end
	for name, s in pairs(new) do
		s.name, s.seal = name, seals[name]
		stores[name] = s
	end
	return true
end

function briefcase_meta.__index(_, name)
	return B[name] or briefcase_find(name)
end

-- A sequence gives an element each, anything else one element.
local function is_sequence(t)
	local n = #t
	if n == 0 or next(t, n) ~= nil and mtype((next(t, n))) ~= "integer" then
		return false
	end
	local count = 0
	for _ in next, t do
		count = count + 1
	end
	return count == n
end

local function store_fill(s, value, level)
	if type(value) == "table" and is_sequence(value) then
		for i, v in ipairs(value) do
			store_add(s, to_element(v, format("element %d", i), level + 1))
		end
	else
		store_add(s, to_element(value, "the element", level + 1))
	end
	return s
end

function briefcase_meta.__newindex(_, name, value)
	check_name(name, 1)
	if B[name] or reserved[name] then
		error(format("the name %q is reserved; use tos.briefcase:create or tos.path", name), 2)
	end
	if stores[name] then
		store_keep(stores[name], "set", 1)
	end
	if value == nil then
		store_drop(name)
		return
	end
	local from = raw_store(value)
	local s = store_new()
	if from then
		for i = from.first, from.last do
			store_add(s, from[i])
		end
	else
		store_fill(s, value, 2)
	end
	store_drop(name)
	s.name, s.seal = name, seals[name]
	stores[name] = s
end

function briefcase_meta.__pairs()
	local names, i = B.names(), 0
	return function()
		i = i + 1
		if names[i] then
			return names[i], briefcase_find(names[i])
		end
	end
end

function briefcase_meta.__tostring()
	return format("briefcase (%d folders, %d bytes)", #B.names(), B.bytes())
end

tos.briefcase = box({}, briefcase_meta)

-- ---- posts and calls

-- What is posted, as name and store.
local function to_folder(value, options, spread, level)
	local s = raw_store(value)
	local name = options and options.name
	if name ~= nil then
		check_name(name, level)
	end
	if s then
		return name or s.name or "", s
	end
	if spread then
		return name or "", store_fill(store_new(), value, level + 1)
	end
	s = store_new()
	store_add(s, to_element(value, "the value", level + 1))
	return name or "", s
end

local function check_options(options, level)
	if options ~= nil and type(options) ~= "table" then
		bad(level + 1, "options must be a table such as { name = \"TASK\" }")
	end
	return options
end

function tos.post(dest, value, options)
	check_dest(dest, 1)
	check_options(options, 1)
	local name, s = to_folder(value, options, false, 2)
	return sys.send(ONEWAY, dest, 0, 0, name, s)
end

local request_meta = { __name = "request", __metatable = "request" }
local R = {}
request_meta.__index = R

local function ask(dest, value, timeout_s, options, level)
	check_dest(dest, level)
	check_options(options, level)
	local ms = check_time(timeout_s, CALL_TIMEOUT, level)
	local name, s = to_folder(value, options, true, level + 1)
	return sys.ask(nil, dest, nil, ms, name, s)
end

local function answer(ok, name, s)
	if not ok then
		return nil, name, s
	end
	if s.last == 0 then
		return true
	end
	local values = {}
	for i = 1, s.last do
		values[i] = decode(s[i])
	end
	return unpack(values, 1, s.last)
end

function tos.call(dest, value, timeout_s, options)
	local tag, code_word, text = ask(dest, value, timeout_s, options, 2)
	if not tag then
		return nil, code_word, text
	end
	return answer(sys.await(tag))
end

-- Ask now, wait later: several questions can be on their way at once.
function tos.ask(dest, value, timeout_s, options)
	local tag, code_word, text = ask(dest, value, timeout_s, options, 2)
	if not tag then
		return nil, code_word, text
	end
	return box({ tag = tag }, request_meta)
end

function R.await(r)
	local q = unbox(r, request_meta)
	if not q then
		error("this needs what tos.ask gave", 2)
	end
	return answer(sys.await(q.tag))
end
tos.await = R.await

-- ---- inboxes

local inbox_meta = { __name = "inbox", __metatable = "inbox" }
local I = {}
inbox_meta.__index = I

local mail_meta = { __name = "mail", __metatable = "mail" }
local M = {}

local function box_of(i)
	local s = unbox(i, inbox_meta)
	if not s then
		error("this needs an inbox; call it with a colon, as in inbox:next(2)", 3)
	end
	return s
end

-- A folder that came: what it holds is read when it is asked for.
local function mail_new(sender, tag, name, s)
	return box({ sender = sender, tag = tag, name = name, store = s }, mail_meta)
end

function mail_meta.__index(m, k)
	local f = unbox(m, mail_meta)
	if k == "data" then
		return f.store.last > 0 and decode(f.store[1]) or nil
	elseif k == "elements" then
		return store_values(f.store)
	elseif k == "sender" or k == "name" then
		return f[k]
	elseif k == "wants_answer" then
		return f.tag ~= 0
	end
	return M[k]
end

function mail_meta.__newindex()
	error("a folder that came can't be changed", 2)
end

function mail_meta.__len(m)
	return unbox(m, mail_meta).store.last
end

function M.answer(m, value, options)
	local f = unbox(m, mail_meta)
	if f.tag == 0 then
		return nil, "wrong-state", "its sender does not wait for an answer"
	end
	check_options(options, 1)
	local name, s = to_folder(value, options, true, 2)
	local ok, code_word, text = sys.send(ANSWER, f.sender, f.tag, 0, options and name or "ok", s)
	if not ok then
		return nil, code_word, text
	end
	f.tag = 0
	return true
end

function M.refuse(m, code_word, text)
	local f = unbox(m, mail_meta)
	if f.tag == 0 then
		return nil, "wrong-state", "its sender does not wait for an answer"
	end
	local s = store_new()
	store_add(s, encode(tostring(code_word or "refused")))
	store_add(s, encode(tostring(text or "")))
	f.tag, s.tag = 0, f.tag
	return sys.send(FAILURE, f.sender, s.tag, 0, "failure", s)
end

function tos.inbox(name, bound)
	if type(name) ~= "string" or not find(name, "^[%w_%-%.]+$") or #name > 63 then
		error("an inbox's name is 1 to 63 letters, digits, '_', '-' or '.'", 2)
	end
	bound = bound or sys.limits().inbox
	if mtype(bound) ~= "integer" or bound < 1 or bound > 65536 then
		error("an inbox's bound is a number of folders, 1 to 65536", 2)
	end
	local ok, code_word, text = sys.inbox_open(name, bound)
	if not ok then
		return nil, code_word, text
	end
	return box({ name = name }, inbox_meta)
end

local function taken(sender, tag, name, s)
	if not sender then
		return nil, tag, name
	end
	return mail_new(sender, tag, name, s)
end

function I.next(i, timeout_s)
	local b = box_of(i)
	return taken(sys.inbox_next(b.name, check_time(timeout_s, INBOX_TIMEOUT, 1)))
end

function I.poll(i)
	return taken(sys.inbox_next(box_of(i).name, 0))
end

function I.size(i)
	return sys.inbox_size(box_of(i).name)
end

function I.close(i)
	return sys.inbox_close(box_of(i).name)
end

function I.name(i)
	return box_of(i).name
end

function inbox_meta.__len(i)
	return sys.inbox_size(box_of(i).name)
end

function inbox_meta.__tostring(i)
	return format("inbox %q", box_of(i).name)
end

-- ---- moving, time, log

function tos.go(dest)
	if dest == nil then
		dest = ""
	elseif type(dest) ~= "string" or #dest > 128 or find(dest, "[^\x21-\x7e]") then
		error("where to go is a kernel's name, or nothing for the path's next entry", 2)
	end
	return sys.go(dest)
end

-- A copy of this carrier: at dest, or at the path's next entry, or here if dest is this kernel. What it
-- gets of the budgets is in split; of what is not said there, half of what is left.
local split_units = { cpu = 1000, hops = 1, sent = 1, clones = 1 }

function tos.clone(dest, split)
	if type(dest) == "table" and split == nil then
		dest, split = nil, dest
	end
	if dest == nil then
		dest = ""
	elseif type(dest) ~= "string" or #dest > 63 or find(dest, "[^\x21-\x7e]") then
		error("where the clone goes is a kernel's name, or nothing for the path's next entry", 2)
	end
	local whole = {}
	for name, value in pairs(split or {}) do
		local unit = split_units[name]
		local n = unit and mtype(value) and value * unit // 1 | 0
		if not n or n < 0 then
			error(format("a clone gets numbers of cpu (s), hops, sent and clones; %s = %s is none", tostring(name),
				tostring(value)), 2)
		end
		whole[name] = n
	end
	return sys.clone(dest, whole)
end

function tos.checkpoint()
	return sys.checkpoint()
end

function tos.sleep(s)
	sys.sleep(check_time(s, 0, 1))
end

tos.now, tos.clock = sys.now, sys.clock

local function line_of(...)
	local args = pack(...)
	for i = 1, args.n do
		args[i] = tostring(args[i])
	end
	return concat(args, "\t", 1, args.n)
end

function tos.log(...)
	return sys.log(line_of(...))
end

function G.print(...)
	sys.log(line_of(...))
end

-- ---- about itself

local about = sys.about()

local function read_only(t, what)
	return box(t, {
		__index = function(_, k)
			return t[k]
		end,
		__newindex = function(_, k)
			error(format("%s can be read only; %s stays as it is", what, tostring(k)), 2)
		end,
		__pairs = function()
			return function(_, k)
				return next(t, k)
			end, nil, nil
		end,
		__name = what,
		__metatable = what,
	})
end

local properties = read_only(about, "properties")

function tos.kernel()
	return about.kernel
end

function tos.self()
	return properties
end

function tos.limits()
	return sys.limits()
end

function tos.usage()
	return sys.usage()
end

tos.bytes = sys.bytes
tos.null = null

-- ---- code of the bundle

-- A module is a file of the bundle, run once. Its globals are its own: it sees the carrier's, and what
-- it sets stays with it. The standard libraries are always the standard ones.
-- require returns those, too.
local loaded, loading, globals_of = { tos = tos }, {}, {}
for _, name in ipairs { "coroutine", "math", "string", "table", "utf8" } do
	loaded[name] = G[name]
end
local module_meta = { __index = G }

function G.require(name)
	if type(name) ~= "string" then
		error("require needs a module's name", 2)
	end
	if loaded[name] ~= nil then
		return loaded[name], globals_of[name]
	end
	if loading[name] then
		error(format("module %q requires itself", name), 2)
	end
	local file = gsub(name, "%.", "/") .. ".lua"
	local globals = setmetatable({}, module_meta)
	local chunk = sys.compile(file, globals)
	if not chunk then
		error(format("no module %q: the carrier's code has no file %s", name, file), 2)
	end
	loading[name] = true
	local _ <close> = setmetatable({}, {
		__close = function()
			loading[name] = nil
		end,
	})
	local value = chunk(name)
	if value == nil then
		value = true
	end
	loaded[name], globals_of[name] = value, globals
	return value, globals
end

G.tos = tos

return function(entry, func, state, failure)
	local chunk = sys.compile(entry)
	if not chunk then
		error(format("the code has no file %s, its entry", entry), 0)
	end
	chunk()
	local f = G[func]
	if type(f) ~= "function" then
		error(format("%s defines no function %s", entry, func), 0)
	end
	f(state, failure)
end
