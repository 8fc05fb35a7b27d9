-- Would raise its own limits.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	local before = tos.limits().cpu
	pcall(function()
		tos.limits().cpu = 1e9
	end)
	pcall(function()
		tos.limits = function()
			return { cpu = 1e9 }
		end
	end)
	assert(tos.usage().cpu < before)
	tos.briefcase:folder("STOPPED"):push("refused")
end
