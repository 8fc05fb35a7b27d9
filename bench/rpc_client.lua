-- Calls the carrier named in folder SERVER: N calls one after the other, then N with OUTSTANDING
-- on their way at once.
local function quantile(t, q)
	return t[math.floor(q * (#t - 1) + 1.5)]
end

function begin()
	local to = tos.briefcase.SERVER[1] .. "/null"
	local n = tonumber(tos.briefcase.N[1])
	local outstanding = tonumber(tos.briefcase.OUTSTANDING[1])
	local us = {}
	for i = 1, n // 10 do
		assert(tos.call(to, true, 10))
	end
	for i = 1, n do
		local at = tos.clock()
		assert(tos.call(to, true, 10))
		us[i] = (tos.clock() - at) * 1e6
	end
	table.sort(us)
	local asked, open, first, last, done = 0, {}, 1, 0, 0
	local begun = tos.clock()
	while done < n do
		while last - first + 1 < outstanding and asked < n do
			last, asked = last + 1, asked + 1
			open[last] = assert(tos.ask(to, true, 10))
		end
		assert(tos.await(open[first]))
		open[first] = nil
		first, done = first + 1, done + 1
	end
	tos.briefcase:folder("RESULTS"):push {
		n = n, p50_us = quantile(us, 0.5), p99_us = quantile(us, 0.99), min_us = us[1],
		per_s = n / (tos.clock() - begun),
	}
end
