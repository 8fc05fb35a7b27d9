-- A loop by goto.
-- stopped by: limit cpu
-- limits: cpu=1
-- within: 15 s
function begin(self)
	::again::
	goto again
end
