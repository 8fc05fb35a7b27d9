-- Coordinates the upgrade of a replicated service: tells each replica's carrier (REPLICA) which transaction it takes part
-- in, and has all of them switch to the new RELEASE, or none. DRY: they say what they would do.
local commit = require "commit"

function begin()
	local replicas = tos.briefcase.REPLICA:get()
	local r, code, text = commit.coordinate {
		name = "upgrade",
		expect = #replicas,
		timeout = tonumber(tos.briefcase.TIMEOUT[1]) or 30,
		dry = tos.briefcase:has("DRY"),
		begun = function(tx)
			for _, replica in ipairs(replicas) do
				tos.post(replica .. "/replica", { tx = tx, release = tos.briefcase.RELEASE[1],
					hold = tos.briefcase:has("HOLD") and tos.briefcase.HOLD[1] or nil })
			end
		end,
	}
	if not r then
		error(code .. ": " .. text)
	end
	tos.briefcase.STATE = { r.state, r.text or "", r.ready }
	for _, m in ipairs(r.members) do
		tos.briefcase:folder("RESULTS"):push { kernel = m.kernel, vote = m.vote, ["from"] = m.plan and m.plan.from, to = m.plan and m.plan.to,
			runs = m.result and m.result.version, why = m.text }
	end
end
