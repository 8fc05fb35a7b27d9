-- Catches that there is no memory and asks for more; the operating system never sees it.
-- stopped by: limit memory
-- limits: memory=8M cpu=20
-- within: 15 s
function begin(self)
	local kept = {}
	for i = 1, 100 do
		pcall(function()
			while true do
				kept[#kept + 1] = ("x"):rep(10000) .. #kept
			end
		end)
	end
	error("limit memory held a hundred times")
end
