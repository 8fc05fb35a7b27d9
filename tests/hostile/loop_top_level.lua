-- An endless loop before begin is there.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
while true do end
function begin(self) end
