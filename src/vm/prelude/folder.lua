-- Folders, and the path, which is one. A store is {first, last, bytes, [i] = encoded element}; a folder
-- is a box around it (sys.box), so that no carrier reaches it but by what is here.
local sys = ...
local error, ipairs, select, tostring, type, format, mtype =
	sys("error", "ipairs", "select", "tostring", "type", "string.format", "math.type")
local box, unbox, encode, decode, is_utf8, check_name, raw_store, folder_meta, path_store =
	sys("box", "unbox", "encode", "decode", "is_utf8", "name", "store", "folder_meta", "path")

local function bad(level, what, ...)
	error(format(what, ...), level + 2)
end

local function to_element(value, what, level)
	local e, why = encode(value, what)
	if not e then
		error(why, level + 1)
	end
	return e
end

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

local F = {} -- methods of folders
local P = {} -- more methods of the path

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
	if s.is_path and (type(value) ~= "string" or not is_utf8(value)) then
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
local function folder_make(name, ...)
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

path_store.is_path, path_store.name = true, "PATH"

return {
	folder = folder_make, path = folder_of(path_store), of = folder_of, keep = store_keep, new = store_new,
	add = store_add, element = to_element,
}
