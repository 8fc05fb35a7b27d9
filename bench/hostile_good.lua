-- A carrier that means well: times CALLS calls to the Echo here, then computes for SPIN seconds and says what share of a
-- core it had. Waits GAP seconds between calls, as something that serves people does.
local function quantile(t, q)
	return t[math.floor(q * (#t - 1) + 1.5)]
end

function begin()
	local calls, spin = tonumber(tos.briefcase.CALLS[1]), tonumber(tos.briefcase.SPIN[1])
	local gap, us = tonumber(tos.briefcase.GAP[1]), {}
	for i = 1, calls do
		tos.sleep(gap)
		local at = tos.clock()
		assert(tos.call("Echo", true, 60))
		us[i] = (tos.clock() - at) * 1e6
	end
	table.sort(us)
	local at, used = tos.clock(), tos.usage().cpu
	local n = 0
	while tos.clock() - at < spin do
		for _ = 1, 10000 do
			n = n + 1
		end
	end
	tos.briefcase:folder("RESULTS"):push {
		p50_us = quantile(us, 0.5), p99_us = quantile(us, 0.99), rounds = n,
		wall = tos.clock() - at, cpu = tos.usage().cpu - used,
	}
end
