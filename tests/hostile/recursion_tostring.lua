-- A __tostring that asks itself.
-- stopped by: error overflow
-- within: 15 s
function begin(self)
	local t = setmetatable({}, { __tostring = function(t)
		return tostring(t)
	end })
	tostring(t)
end
