-- Takes part in transactions, one after the other, and answers null calls; for tools/bench commit.
function begin()
	local orders, said = tos.inbox("orders"), tos.inbox("commit")
	while true do
		local m = orders:next(600)
		if not m or m.name == "end" then
			return
		elseif m.name == "null" then
			m:answer(true)
		else
			local tx = m.data
			assert(tos.call("Commit", { tx = tx }, 10, { name = "JOIN" }))
			m:answer(true)
			local mail = said:next(30)
			mail:answer({ yes = true })
			repeat
				mail = said:next(30)
				mail:answer(true)
			until mail.name ~= "PREPARE"
			tos.call("Commit", { tx = tx }, 10, { name = "DONE" })
		end
	end
end
