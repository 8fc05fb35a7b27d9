-- A comparison function of sort that never ends.
-- stopped by: limit cpu or error too long without a pause
-- limits: cpu=1
-- within: 15 s
function begin(self)
	table.sort({ 3, 2, 1 }, function()
		while true do end
	end)
end
