-- From the time in folder AT on posts N folders with the present time to the carrier in folder TO, one each PAUSE seconds.
function begin()
	tos.sleep(math.max(0, tonumber(tos.briefcase.AT[1]) - tos.now()))
	for _ = 1, tonumber(tos.briefcase.N[1]) do
		tos.sleep(tonumber(tos.briefcase.PAUSE[1]))
		assert(tos.post(tos.briefcase.TO[1] .. "/in", tos.clock()))
	end
end
