-- Would change its own signed code.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	assert(not pcall(function()
		tos.briefcase.CODE = "function begin(self) end"
	end))
	assert(not pcall(function()
		tos.briefcase:delete("CODE")
	end))
	assert(not pcall(function()
		tos.briefcase:folder("CODE"):push("x")
	end))
	tos.briefcase:folder("STOPPED"):push("refused")
end
