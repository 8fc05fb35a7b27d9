-- A replacement function of gsub that never ends.
-- stopped by: limit cpu or error too long without a pause
-- limits: cpu=1
-- within: 15 s
function begin(self)
	string.gsub("x", "x", function()
		while true do end
	end)
end
