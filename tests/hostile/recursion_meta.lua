-- An __index that asks itself.
-- stopped by: error overflow
-- limits: memory=64M
-- within: 15 s
function begin(self)
	local t = setmetatable({}, {})
	getmetatable(t).__index = function(t, k)
		return t[k .. "x"]
	end
	local _ = t.x
end
