-- Doubles with each character.
-- stopped by: limit cpu or error
-- limits: cpu=1
-- within: 15 s
function begin(self)
	while true do
		local _ = ("a"):rep(40):find(("a?"):rep(40) .. ("a"):rep(40) .. "b")
	end
end
