-- An endless loop.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do end
end
