-- An error handler that fails, for ever.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		xpcall(error, function(e)
			error(e)
		end, "again")
	end
end
