-- One replica's part of an upgrade. It fetches the release and has the host's service manager install it beside the one
-- that runs and try it; that is its vote. When all can, it switches; else the new one is taken away again.
local commit = require "commit"

local function service(verb, digest)
	return tos.call("Service", { digest }, 30, { name = verb })
end

local function bytes(hex)
	return tos.bytes((hex:gsub("%x%x", function(two) return string.char(tonumber(two, 16)) end)))
end

function begin(self)
	local digest, from = tos.briefcase.RELEASE[1], tos.briefcase.FROM[1]
	if not self.tx then
		local mail = tos.inbox("tx"):next(60)
		self.tx = mail and mail.data
		if not self.tx then
			error("nobody told me which transaction")
		end
		tos.checkpoint() -- what is known now is known after a crash
	end
	local state, what = commit.participant {
		tx = self.tx,
		prepare = function(_, dry)
			local ok, _, why = tos.call("Content", { digest = bytes(digest), from = from }, 20, { name = "FETCH" })
			if not ok then
				return nil, "fetch: " .. why
			end
			local plan
			plan, _, why = service("STAGE", digest)
			if dry then
				service("DROP", digest)
			end
			return plan, why
		end,
		-- All the others switch: this host has to, as soon as it can. An error here is a fault of the carrier, which an
		-- operator mends and then has it retry.
		commit = function()
			local now, _, why
			for _ = 1, 60 do
				now, _, why = service("SWITCH", digest)
				if now then
					return now
				end
				tos.sleep(1)
				service("STAGE", digest) -- it may be gone
			end
			error(why)
		end,
		abort = function()
			service("DROP", digest)
		end,
	}
	local now, _, why = service("STATUS")
	tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), state = tostring(state),
		runs = now and now.version or why, why = state == "aborted" and what or nil }
end
