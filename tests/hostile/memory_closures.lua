-- Closures that hold each other.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local f
	while true do
		local g = f
		f = function()
			return g
		end
	end
end
