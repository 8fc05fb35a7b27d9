-- A pattern that would go deep in C.
-- stopped by: error too complex
-- within: 15 s
function begin(self)
	local _ = ("x"):rep(300000):find(("x?"):rep(300000))
end
