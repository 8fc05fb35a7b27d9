-- Holds 1 KB of state, as many values as a carrier's usually has, and waits for a folder that does not come. The yardstick
-- (lua_state.c) runs the same text in plain Lua and calls only `fill`.
local function item(i)
	return { id = i, name = "item " .. i, at = { 10 * i, 20 * i }, done = i % 2 == 0 }
end

function fill(self)
	self.items = {}
	for i = 1, 24 do
		self.items[i] = item(i)
	end
	self.title = ("what it is about "):rep(4)
	return self
end

local function handle(self, m)
	self.last = m and m.data
	return self.last ~= "end"
end

function begin(self)
	fill(self)
	local box = tos.inbox("in")
	while handle(self, box:next(86400)) do
	end
end
