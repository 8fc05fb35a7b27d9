-- A metamethod __tostring that never ends.
-- stopped by: limit cpu or error too long without a pause
-- limits: cpu=1
-- within: 15 s
function begin(self)
	local t = setmetatable({}, { __tostring = function()
		while true do end
	end })
	tostring(t)
end
