-- Waits for N folders, each with the time at which it was posted; how long each was on its way goes into folder US.
function begin()
	local box, us = assert(tos.inbox("in", 1000)), tos.briefcase:folder("US")
	for _ = 1, tonumber(tos.briefcase.N[1]) do
		local m = assert(box:next(300))
		us:push((tos.clock() - m.data) * 1e6)
	end
end
