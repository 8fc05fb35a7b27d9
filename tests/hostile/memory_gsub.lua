-- A replacement that is much longer.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local s = ("x"):rep(100000):gsub("x", ("y"):rep(1000))
	error("it was given " .. #s)
end
