-- A self larger than it may be.
-- stopped by: error limit
-- limits: state=100K
-- within: 15 s
function begin(self)
	self.s = ("x"):rep(200000)
	assert(tos.checkpoint())
end
