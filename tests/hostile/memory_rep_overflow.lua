-- A string of nearly all the bytes there can be.
-- stopped by: limit memory or error too large
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local s = ("x"):rep(math.maxinteger // 2)
	error("it was given " .. #s)
end
