-- What the functions of string and table answer, a line each: run by tos-vm, whose are its own, and
-- by the Lua of the system; the lines must be the same. `say` is given by either.
local say = ...
local seed = 42
local function random(n)
	seed = (seed * 1103515245 + 12345) % 2147483648
	return seed // 65536 % n + 1
end
local function show(...)
	local t = table.pack(...)
	for i = 1, t.n do
		t[i] = type(t[i]) == "string" and string.format("%q", t[i]) or tostring(t[i])
	end
	return table.concat(t, " ")
end
-- Without the position, and without what differs by design.
local function try(what, f, ...)
	local t = table.pack(pcall(f, ...))
	if not t[1] then
		t[2] = tostring(t[2]):gsub("^[^:]*:%d+: ", ""):gsub("%(%.%.%..*$", "")
	end
	say(what .. ": " .. show(table.unpack(t, 1, t.n)))
end

local subjects = { "", "a", "hello world", "  trim me  ", "key = value", "aaa", "a.b.c", "x(y(z)w)v", "THE (quick) fox",
	"2026-11-22", "\0bin\0ary", "[[set]]", "100%", "äöü", ("ab"):rep(50), "a\nb\nc", "f(a,b)", "-12.5e3", "%d%%" }
local patterns = { "", "a", ".", ".-", ".*", "a*", "a+", "a-", "a?", "^a", "a$", "^$", "^%s*(.-)%s*$", "(%w+)%s*=%s*(%w+)", "%b()",
	"%f[%w]%w+", "[%a_][%w_]*", "[^%s]+", "()", "(a)(b)", "(.)%1", "%d+", "[]]", "[^]]", "[a-c]", "[%-x]", "[a-]", "(()", "())", "%",
	"[a", "%b", "%f", "%1", "(%d%d%d%d)-(%d%d)-(%d%d)", "((.)(.))", "%S", "%u%l*", "%x+", "%p", "%c", "%g+", "[%s%p]", "%z",
	".-b", "(a*(.)%w(%s*))", "^(.-)%.", "%.", "[.]", "\0", "[%", "[^", "a**", "%%" }
for _, s in ipairs(subjects) do
	for _, p in ipairs(patterns) do
		try("find", string.find, s, p)
		try("find at", string.find, s, p, random(12) - 6)
		try("match", string.match, s, p, random(5) - 2)
		try("gsub text", string.gsub, s, p, "<%0>")
		try("gsub 1", string.gsub, s, p, "%1%%", random(3))
		try("gsub f", string.gsub, s, p, function(...) return select("#", ...) > 1 and select(2, ...) or nil end)
		try("gsub t", string.gsub, s, p, { a = "A", ["hello"] = 5, ["("] = false, key = "k" })
		try("gmatch", function()
			local all, n = {}, 0
			for a, b in string.gmatch(s, p) do
				n = n + 1
				all[#all + 1] = show(a, b)
				if n > 200 then break end
			end
			return table.concat(all, ";")
		end)
	end
	try("plain", string.find, s, "%", 1, true)
	try("plain far", string.find, s, "a", 30, true)
	for _, f in ipairs { "upper", "lower", "reverse" } do
		try(f, string[f], s)
		try(f .. " long", function() return #string[f](s:rep(5000)), string[f](s:rep(5000)):sub(-20) end)
	end
	for _, n in ipairs { -1, 0, 1, 2, 7 } do
		try("rep", string.rep, s, n)
		try("rep sep", string.rep, s, n, ", ")
	end
	try("rep long", function() local r = s:rep(20000, "-") return #r, r:sub(-30), select(2, r:gsub("-", "")) end)
	try("q", string.format, "%q|%s|%-12s|%5.1s", s, s, s, s)
	try("q long", function() local l = (s .. "\n\0" .. "1\"\\"):rep(3000) return string.format("<%q %d %q>", l, 7, "x") end)
end
try("gsub number", string.gsub, "abc", "b", 12)
try("gsub bad", string.gsub, "abc", "b", true)
try("gsub bad value", string.gsub, "abc", "b", function() return {} end)
try("gsub bad escape", string.gsub, "abc", "b", "%z")
try("gsub bad capture", string.gsub, "abc", "b", "%2")
try("gsub none", string.gsub, "abc", "b", "x", 0)
try("gsub fewer", string.gsub, "abcabcabc", "b", "x", 2)
try("number subject", string.find, 12345, 34)
try("gmatch init", function() local r = {} for w in ("one two three"):gmatch("%a+", 3) do r[#r + 1] = w end return table.concat(r, ",") end)
try("format", string.format, "%5d %-5d| %05.1f %x %s %s %i %c %g %a", 42, -7, 3.14159, 255, nil, true, 7, 65, 1e20, 1)
try("format many", string.format, "%d", "x")
try("format bad", string.format, "%y", 1)
try("format percent", string.format, "100%% %5s%%", "x")
try("format none", string.format, "%d")

local big = {}
for i = 1, 5000 do
	big[i] = (i * 7919) % 5003
end
try("concat", table.concat, { 1, 2, "x", 4.5 }, ", ")
try("concat part", table.concat, { 1, 2, 3, 4 }, "-", 2, 3)
try("concat none", table.concat, {}, "x")
try("concat empty", table.concat, { 1 }, "x", 2, 1)
try("concat bad", table.concat, { 1, {}, 3 })
try("concat long", function() local s = table.concat(big, ";") return #s, s:sub(1, 30), s:sub(-30) end)
try("concat edge", table.concat, setmetatable({}, { __index = function(_, k) return "i" end }), "", math.maxinteger, math.maxinteger)
try("insert", function() local t = { 1, 2, 3 } table.insert(t, 2, "x") table.insert(t, 9) return table.unpack(t) end)
try("insert far", table.insert, { 1, 2 }, 9, 1)
try("insert args", table.insert, { 1, 2 })
try("remove", function() local t = { 1, 2, 3, 4 } return table.remove(t, 1), table.remove(t), #t, t[1], t[2] end)
try("remove none", function() return table.remove({}), table.remove({}, 0), table.remove({ 1 }, 2) end)
try("remove far", table.remove, { 1, 2 }, 7)
try("move", function() return table.unpack(table.move({ 1, 2, 3, 4, 5 }, 1, 4, 2)) end)
try("move back", function() return table.unpack(table.move({ 1, 2, 3, 4, 5 }, 2, 5, 1)) end)
try("move other", function() return table.unpack(table.move({ 1, 2, 3 }, 1, 3, 2, { 9 })) end)
try("move none", function() return #table.move({ 1 }, 2, 1, 1) end)
try("move wrap", table.move, {}, 1, math.maxinteger, 2)
try("move many", table.move, {}, math.mininteger, 1, 2)
try("unpack", table.unpack, { 1, 2, 3 }, 2)
try("unpack nil", table.unpack, { 1, nil, 3 }, 1, 3)
try("unpack many", table.unpack, {}, 1, 1 << 40)
local function sorted(f, t)
	table.sort(t, f)
	return table.concat(t, " ")
end
try("sort", sorted, nil, { 3, 1, 2, 5.5, -1, 0 })
try("sort text", sorted, nil, { "b", "a", "c", "B", "" })
try("sort down", sorted, function(a, b) return a > b end, { 3, 1, 2, 2, 9 })
try("sort long", sorted, nil, big)
try("sort long down", sorted, function(a, b) return a > b end, big)
try("sort one", sorted, nil, { 1 })
try("sort mixed", sorted, nil, { 1, "x", 2 })
try("sort bad", table.sort, { 2, 1 }, 5)
try("sort meta", function()
	local m = { __lt = function(a, b) return a.v < b.v end }
	local t = {}
	for i = 1, 50 do t[i] = setmetatable({ v = i * 37 % 53 }, m) end
	table.sort(t)
	local r = {}
	for i, x in ipairs(t) do r[i] = x.v end
	return table.concat(r, " ")
end)
local function proxy(t)
	return setmetatable({}, { __index = t, __newindex = t, __len = function() return #t end })
end
try("proxy", function()
	local under = { 3, 1, 2 }
	local p = proxy(under)
	table.sort(p)
	table.insert(p, 1, 0)
	table.insert(p, 9)
	return table.concat(p, ","), table.remove(p, 1), table.unpack(p)
end)
try("not a table", table.concat, 5)
try("not a table", table.sort, "x")

-- utf8.len: well formed, cut short, too long, beyond Unicode, surrogates, six bytes of old.
for _, s in ipairs { "", "a", "äöü", "a€😀z", "\xff", "a\x80", "\xc3", "ab\xe2\x82", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
	"\xfd\xbf\xbf\xbf\xbf\xbf", "\xfe\x80\x80\x80\x80\x80\x80", "\xf8\x88\x80\x80\x80", "x\0y", ("ä"):rep(100000), ("ä"):rep(50000) .. "\xff" } do
	try("utf8.len", utf8.len, s)
	try("utf8.len lax", utf8.len, s, 1, -1, true)
	for _ = 1, 6 do
		try("utf8.len at", utf8.len, s, random(8) - 4, random(8) - 4)
		try("utf8.len from", utf8.len, s, random(8) - 4, nil, random(2) == 1)
	end
end
try("utf8.len", utf8.len)
try("utf8.len", utf8.len, 12.5)
try("utf8.len", utf8.len, "abc", math.mininteger, math.maxinteger)
