-- install-extension: brings extensions to every kernel on its path. Folder PACKAGE holds packages, as tos extension build
-- makes them; folder REMOVE names of extensions that are to go. Who launches it needs the right to install, and each
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
	for _, name in ipairs(tos.briefcase:folder("REMOVE")) do
		failed = not ask("REMOVE", { name = name }, { extension = name }) or failed
	end
	self.failed = self.failed or failed
end
