-- One string of a thousand megabytes.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local s = ("x"):rep(1 << 30)
end
