-- One of many that wait: 1 KB of state, an inbox, nothing to do.
function begin(self)
	self.state = self.state or string.rep("x", 1024)
	tos.inbox("go"):next(3600)
end
