-- postman: posts "Hello, World" to inbox Echo of each kernel on its path.

function begin(self)
	tos.post("Echo", "Hello, World")
end
