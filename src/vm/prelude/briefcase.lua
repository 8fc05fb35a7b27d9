-- The briefcase: the folders that travel, and two that are views: the path, and the code.
local sys = ...
local error, ipairs, next, pairs, type, format, mtype, sort =
	sys("error", "ipairs", "next", "pairs", "type", "string.format", "math.type", "table.sort")
local box, check_name, raw_store, stores, seals, folders = sys("box", "name", "store", "stores", "seals", "part.folder")
local folder_of, store_keep, store_new, store_add, to_element, path =
	folders.of, folders.keep, folders.new, folders.add, folders.element, folders.path

local is_reserved = { PATH = true, HOST = true, CODE = true, ["X-CODE"] = true }

local function reserved(name)
	if is_reserved[name] then
		return (name == "PATH" or name == "HOST") and path or sys("part.code").code
	end
end

local B = {}
local briefcase_meta = { __name = "briefcase", __metatable = "briefcase" }

for name, s in pairs(stores) do
	s.name, s.seal = name, seals[name]
end

local function briefcase_find(name)
	local s = stores[name]
	return reserved(name) or s and folder_of(s)
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
	if is_reserved[name] then
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
	if is_reserved[name] then
		error(format("the folder %q can't be deleted", name), 2)
	end
	if stores[name] then
		store_keep(stores[name], "delete", 1)
	end
	return store_drop(name)
end

function B.has(_, name)
	return is_reserved[name] ~= nil or stores[name] ~= nil
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
	return sys("archive")()
end

function B.unarchive(_, bytes)
	if type(bytes) ~= "string" then
		error("unarchive needs the string that archive gave", 2)
	end
	local new, code_word, text = sys("unarchive")(bytes)
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
	if B[name] or is_reserved[name] then
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

return { briefcase = box({}, briefcase_meta) }
