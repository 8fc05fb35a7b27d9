-- A module is a file of the bundle, run once. Its globals are its own: it sees the carrier's, and what
-- it sets stays with it. The standard libraries are always the standard ones.
-- require returns those, too.
local sys = ...
local error, setmetatable, type, format, gsub, G =
	sys("error", "setmetatable", "type", "string.format", "string.gsub", "_G")
local compile = sys("compile")

local loaded, loading, globals_of = {}, {}, {}
loaded.tos, loaded.coroutine, loaded.math, loaded.string, loaded.table, loaded.utf8 =
	sys("tos", "coroutine", "math", "string", "table", "utf8")
local module_meta = { __index = G }

local function require(name)
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
	local chunk = compile(file, globals)
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

return { require = require }
