-- install-extension: brings extensions to every kernel on its path. Folder PACKAGE holds packages, as tos extension build
-- makes them; DIGEST those that are too large to travel along, by their SHA-256: each kernel fetches them from the content
-- store of the kernels in folder FROM (`tos content put`). Folder REMOVE names of extensions that are to go. Who launches it needs the right to install, and each
-- package an officer's signature. One row a kernel and package goes into folder RESULTS.

local function note(row)
	row.kernel = tos.kernel()
	tos.briefcase:folder("RESULTS"):push(row)
	tos.log(("%s: %s %s"):format(row.kernel, row.extension or "?", row.done or row.why))
end

local function ask(verb, args, row)
	local answer, code, text = tos.call("Extender", args, 60, { name = verb })

	if not answer then
		row.why, row.text = code, text
	else
		row.extension, row.version, row.done = answer.name, answer.version, verb == "REMOVE" and "removed" or "installed"
		row.replaces = answer.replaces
	end
	note(row)
	return answer
end

function begin(self)
	local failed

	for _, package in ipairs(tos.briefcase:folder("PACKAGE")) do
		failed = not ask("INSTALL", { package = package, replace = true }, {}) or failed
	end
	for _, digest in ipairs(tos.briefcase:folder("DIGEST")) do
		local from = {}

		for _, kernel in ipairs(tos.briefcase:folder("FROM")) do from[#from + 1] = kernel end
		tos.call("Content", { digest = digest, from = from }, 300, { name = "FETCH" })
		failed = not ask("INSTALL", { digest = digest, replace = true }, { extension = digest }) or failed
	end
	for _, name in ipairs(tos.briefcase:folder("REMOVE")) do
		failed = not ask("REMOVE", { name = name }, { extension = name }) or failed
	end
	self.failed = self.failed or failed
end
