-- Goes to and fro between the two kernels in folder HOSTS, N times, with 1 KB of state, after PAUSE seconds each; how long
-- each move took, from before tos.go to the first line there, goes into folder US. With a folder AT it first waits for that
-- time, so that many of them go together.
function begin(self)
	local now = tos.clock()
	if not self.n then
		if tos.briefcase:has("AT") then tos.sleep(math.max(0, tonumber(tos.briefcase.AT[1]) - tos.now())) end
		self.n, self.us, self.begun = 0, {}, tos.clock()
		self.load = string.rep("x", 1024)
	else
		self.n = self.n + 1
		tos.briefcase:folder("US"):push((now - self.at) * 1e6)
	end
	local n = tonumber(tos.briefcase.N[1])
	if self.n < n then
		local hosts = tos.briefcase.HOSTS
		tos.sleep(tonumber(tos.briefcase.PAUSE[1])) -- one move at a time, at rest before
		self.at = tos.clock()
		error(table.concat({ select(2, tos.go(tos.kernel() == hosts[1] and hosts[2] or hosts[1])) }, ": "))
	end
	tos.briefcase:folder("SPAN"):push { self.begun, now }
end
