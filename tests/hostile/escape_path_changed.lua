-- Would go where its ticket does not say.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	local before = #tos.path
	pcall(function()
		tos.path:push("host9")
	end)
	local ok, code = tos.go("host9")
	assert(not ok)
	if #tos.path > before then
		tos.path:pop()
	end
	tos.briefcase:folder("STOPPED"):push("refused")
end
