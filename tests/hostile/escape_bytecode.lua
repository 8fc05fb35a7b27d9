-- Asks for bytecode and for what loads it.
-- stopped by: refusal refused
-- within: 15 s
function begin(self)
	for _, name in ipairs { "load", "loadstring", "loadfile", "dofile", "debug", "io", "os", "package" } do
		assert(_G[name] == nil, name)
	end
	assert(string.dump == nil)
	assert(not pcall(require, "string"))
	assert(not pcall(require, "/etc/passwd"))
	assert(not pcall(require, "../secrets"))
	tos.briefcase:folder("STOPPED"):push("refused")
end
