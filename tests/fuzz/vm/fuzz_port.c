/*
 * A kernel's whole conversation with a tos-vm, led by the input: carriers are started and run
 * for a slice, get posts, answers, limits, pauses, an end, and frames as no kernel makes them.
 * Any frame is taken or refused; what the tos-vm says is a row of whole frames.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vm/port.c" /* its frames are nobody else's */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MOST 2048
#define TURNS_MOST 16
#define LOOK_BYTES ((size_t)256 << 10)

static const char *const programs[] = {
	/* Answers what comes, and keeps some. */
	"function begin()\n"
	"  self.kept = {}\n"
	"  local box = tos.inbox('x', 3)\n"
	"  while box do\n"
	"    local m, why = box:next(0.001)\n"
	"    self.kept[#self.kept + 1] = m and m.data or why\n"
	"    if m and m.wants_answer then m:answer(m.data) end\n"
	"    if m and not m.wants_answer then tos.post(m.sender, m.data) end\n"
	"    if #self.kept > 5 then tos.checkpoint() self.kept = {} end\n"
	"  end\n"
	"end\n",
	"function begin()\n"
	"  self.why = { tos.go('host1') }\n"
	"  tos.log('back', self.why[2])\n"
	"  error('back')\n"
	"end\n",
	"function begin()\n"
	"  self.first = tos.ask('host0/files', 'f', 1)\n"
	"  self.answer = { tos.call('host0/files', 1, 0.01) }\n"
	"end\n",
	"function begin() local t = {} for i = 1, 3000 do t[i] = ('x'):rep(i) end end\n",
	"function begin() for i = 1, 1000000 do end tos.sleep(0.001) end\n",
	"this is no Lua",
};

static struct vm_port *port;
static int kernel_fd;

static void start_map(struct buf *b, const char *program, bool held)
{
	AUTOBUF bundle = BUF_INIT;

	cbor_put_array(&bundle, 2);
	cbor_put_bytes(&bundle, "m", 1);
	cbor_put_map(&bundle, 1);
	cbor_put_text(&bundle, "main.lua");
	cbor_put_bytes(&bundle, program, strlen(program));
	cbor_put_map(b, held ? 6 : 5);
	if (held) {
		cbor_put_text(b, "held");
		cbor_put_bool(b, true);
	}
	cbor_put_text(b, "name");
	cbor_put_text(b, "host0#42");
	cbor_put_text(b, "entry");
	cbor_put_text(b, "main.lua");
	cbor_put_text(b, "bundle");
	cbor_put_bytes(b, bundle.data, bundle.len);
	cbor_put_text(b, "limits");
	cbor_put_map(b, 1);
	cbor_put_text(b, "memory");
	cbor_put_uint(b, 1 << 20);
	cbor_put_text(b, "answers");
	cbor_put_bool(b, true);
}

static void head(struct buf *b, unsigned n, unsigned type, uint64_t number)
{
	cbor_put_array(b, n);
	cbor_put_uint(b, type);
	cbor_put_uint(b, number);
}

static void deliver(struct buf *b, uint64_t number, unsigned arg, struct slice s)
{
	head(b, 9, VM_DELIVER, number);
	cbor_put_uint(b, arg & 3);
	cbor_put_text(b, arg & 4 ? "x" : "");
	cbor_put_text(b, arg & 8 ? "" : "host1/client/1");
	cbor_put_uint(b, arg >> 4);
	cbor_put_array(b, 2);
	cbor_put_text(b, "f");
	cbor_put_array(b, 1);
	cbor_put_bytes(b, s.p, s.n);
	cbor_put_text(b, arg & 16 ? "alice" : "");
	cbor_put_text(b, arg & 16 ? "client" : "");
}

static void done(struct buf *b, uint64_t number, unsigned arg)
{
	static const char *const codes[] = { "", "denied", "no such word", "limit" };

	head(b, 6, VM_DONE, number);
	cbor_put_uint(b, arg >> 2);
	cbor_put_text(b, codes[arg & 3]);
	cbor_put_text(b, arg & 3 ? "why" : "");
	cbor_put_null(b);
}

/* A frame as a kernel makes it; n: bytes that it takes from the input. */
static void make_frame(
	struct buf *b, unsigned op, uint64_t number, unsigned arg, struct slice s)
{
	switch (op) {
	case 1:
		head(b, 3, VM_START, number);
		start_map(b, programs[arg % (sizeof(programs) / sizeof(*programs))], arg & 128);
		break;
	case 2:
		deliver(b, number, arg, s);
		break;
	case 3:
		done(b, number, arg);
		break;
	case 4:
		head(b, 2, VM_END, number);
		break;
	case 5:
		head(b, arg & 2 ? 2 : 3, arg & 2 ? VM_RUN : VM_PAUSE, number);
		if (!(arg & 2))
			cbor_put_bool(b, arg & 1);
		break;
	case 6:
		head(b, 4, VM_LIMITS, number);
		cbor_put_map(b, 1);
		cbor_put_text(b, "memory");
		cbor_put_uint(b, (uint64_t)arg << 12);
		cbor_put_map(b, 1);
		cbor_put_text(b, "clones");
		cbor_put_uint(b, arg & 7);
		break;
	default:
		cbor_put_raw(b, s);
	}
}

/* What the kernel reads. */
static void listen_to_it(struct frame_reader *r)
{
	struct slice frame;
	struct cbor_cursor c;
	ssize_t n;
	int rc;

	port_flush(port);
	for (;;) {
		must(buf_reserve(&r->in, LOOK_BYTES) == 0);
		n = recv(kernel_fd, r->in.data + r->in.len, LOOK_BYTES, MSG_DONTWAIT);
		if (n <= 0)
			break;
		r->in.len += (size_t)n;
	}
	while ((rc = frame_next(r, &frame)) == 0) {
		int type = frame_open(&c, frame);

		must(type >= VM_READY && type <= VM_STUCK);
	}
	must(rc == ERR_AGAIN);
}

static struct vm_port *port_new(int fd)
{
	struct vm_port *p = mem_new(struct vm_port);

	p->fd = fd;
	p->carriers = map_new();
	p->in.max = VM_FRAME_BYTES_MAX;
	p->in.in.max = VM_FRAME_BYTES_MAX + 2 * READ_BYTES;
	sched_init(p);
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_reader heard = { BUF_INIT, 0, VM_FRAME_BYTES_MAX };
	size_t left = size > INPUT_MOST ? INPUT_MOST : size;
	unsigned turns = 0;
	int fds[2], rc = 0;

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	kernel_fd = fds[1];
	port = port_new(fds[0]);
	while (rc == 0 && left >= 2) {
		unsigned op = data[0] & 7, arg = data[1];
		uint64_t number = data[0] >> 6;
		size_t n = op == 0 || op == 2 ? arg & 63 : 0;
		struct slice s = { data + 2, n < left - 2 ? n : left - 2 };
		AUTOBUF b = BUF_INIT;

		data += 2 + s.n;
		left -= 2 + s.n;
		if (op == 7) {
			if (turns++ < TURNS_MOST)
				sched_turn(port);
		} else {
			make_frame(&b, op, number, arg, s);
			rc = port_frame(port, (struct slice){ b.data, b.len });
		}
		listen_to_it(&heard);
	}
	port_fini(port);
	buf_fini(&heard.in);
	close(fds[0]);
	close(fds[1]);
	return 0;
}
