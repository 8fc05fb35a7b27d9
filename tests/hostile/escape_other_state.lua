-- Looks for what another carrier left in the process.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	assert(rawget(_G, "secret_of_another") == nil)
	secret_of_another = true
	string.secret_of_another = true
	assert(tos.briefcase:has("SECRET") == false)
	for name in pairs(_G) do
		assert(not name:find("^host"), name)
	end
	tos.briefcase:folder("STOPPED"):push("refused")
end
