-- facts: what the operating system of every host on the path says about itself.
-- One row a kernel goes into folder RESULTS; "Hello, World" goes to each kernel's Echo.

local function ask(...)
	local answer, code, text = tos.call("Monitor", { ... }, 5)
	if not answer then
		tos.log(("Monitor does not tell %s: %s"):format((...), text or code))
		return {}
	end
	return answer
end

local function gib(bytes)
	return bytes and ("%.1f GiB"):format(bytes / 2 ^ 30) or "?"
end

function begin(self)
	local os, host, load = ask("os"), ask("host"), ask("load")
	local memory, root = ask("memory"), ask("filesystem", "/")

	tos.briefcase:folder("RESULTS"):push {
		kernel = tos.kernel(),
		host = host.hostname or "?",
		os = os.text or "?",
		cpus = host.cpus,
		load = load.one and ("%.2f"):format(load.one) or "?",
		memory = gib(memory.total),
		mem_free = gib(memory.available),
		disk = gib(root.total),
		disk_free = gib(root.available),
	}
	self.seen = (self.seen or 0) + 1
	tos.log(("%s is host number %d"):format(tos.kernel(), self.seen))
	tos.post("Echo", "Hello, World")
end
