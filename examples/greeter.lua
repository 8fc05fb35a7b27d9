-- An extension in Lua: answers calls to the inbox Greeter, and remembers who was there.
--   tos extension build examples/greeter.lua --name Greeter --release 1 --sign OFFICER
--   tos extension install examples/greeter.ext
--   tos call Greeter World

local seen, n = {}, 0

local function greet(message)
	local name = message.elements[1] or "nobody"

	if not seen[name] then
		seen[name], n = true, n + 1
		tos.count("greeted")
	end
	tos.log(("%s greets %s"):format(message.sender, name))
	return "Hello, " .. name, n
end

extension {
	name = "greeter",
	doc = "Greets whoever asks.",
	inboxes = { Greeter = { greet, doc = "answers NAME with a greeting, and how many there were", bound = 100 } },
	start = function() tos.log("greeting at " .. tos.kernel()) end,
}
