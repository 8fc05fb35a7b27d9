-- Commits N transactions of all VOTERS, and makes two rounds of null calls to each; US and NULL are microseconds. For tools/bench
-- commit.
local function all(voters, name, value)
	local asked = {}
	for i, v in ipairs(voters) do
		asked[i] = tos.ask(v .. "/orders", value, 20, { name = name })
	end
	for _, a in ipairs(asked) do
		assert(a:await())
	end
end

function begin()
	local voters, n = tos.briefcase.VOTERS:get(), tonumber(tos.briefcase.N[1])
	local us, null = tos.briefcase:folder("US"), tos.briefcase:folder("NULL")
	for _ = 1, n do
		local tx = assert(tos.call("Commit", { phases = 2 }, 10, { name = "BEGIN" })).tx
		all(voters, "tx", { tx })
		local at = tos.clock()
		assert(tos.call("Commit", { tx = tx, expect = #voters }, 20, { name = "COMMIT" }))
		us:push((tos.clock() - at) * 1e6)
		tos.sleep(0.05)
		at = tos.clock()
		all(voters, "null", { 1 })
		all(voters, "null", { 1 })
		null:push((tos.clock() - at) * 1e6)
	end
	for _, v in ipairs(voters) do
		tos.post(v .. "/orders", 1, { name = "end" })
	end
end
