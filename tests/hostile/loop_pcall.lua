-- Catches whatever would stop it and goes on.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		pcall(function()
			while true do end
		end)
	end
end
