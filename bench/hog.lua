-- Burns CPU from the time in folder AT to that in folder UNTIL.
function begin()
	local n, untilt = 0, tonumber(tos.briefcase.UNTIL[1])
	tos.sleep(math.max(0, tonumber(tos.briefcase.AT[1]) - tos.now()))
	while tos.now() < untilt do
		for _ = 1, 100000 do
			n = n + 1
		end
	end
end
