-- The Postman of the guide: delivers a message at each kernel and counts its stops.

function begin(self)
	self.stops = (self.stops or 0) + 1
	tos.post("Echo", "Hello, World")
	tos.briefcase:folder("RESULTS"):push { kernel = tos.kernel(), stop = self.stops }
end
