-- The folder CODE: the files that the author signed, to be read.
local sys = ...
local error, ipairs, pairs, format, mtype, sort =
	sys("error", "ipairs", "pairs", "string.format", "math.type", "table.sort")
local box, files = sys("box", "files")
files = files()

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

return { code = box({}, code_meta) }
