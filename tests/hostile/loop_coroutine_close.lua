-- Coroutines whose to-be-closed variable never lets go, one after the other.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local co = coroutine.create(function()
			local x <close> = setmetatable({}, { __close = function()
				while true do end
			end })
			coroutine.yield()
		end)
		coroutine.resume(co)
		coroutine.close(co)
	end
end
