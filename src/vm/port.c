/*
 * Descriptor 3: frames from the kernel to the carriers and back. The loop of the process.
 *
 * Posts, and what goes along with them, are written at the end of a slice: a write for each would
 * cost more than all the rest of it. Writing blocks: a tos-vm has nothing better to do than to hand over what it has said. A frame
 * that breaks the rules ends the process, which ends the carriers: the kernel that sent it is
 * not ours, or broken.
 */
#include "vm/code.h"
#include "vm/libs.h"
#include "vm/vm.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "wire/vmproto.h"

#define ENC_KEEP_BYTES ((size_t)64 << 10)
#ifdef TOS_HOSTILE
#define READ_BYTES ((size_t)7) /* every frame comes in pieces */
#else
#define READ_BYTES ((size_t)64 << 10)
#endif

#define FLUSH_BYTES ((size_t)32 << 10)

/* Nobody is left to tell. */
_Noreturn static void port_gone(void)
{
	_exit(0);
}

size_t port_begin(struct vm_port *p, uint64_t n_elements, unsigned type, uint64_t carrier)
{
	size_t at;

	if (p->n_made >= FLUSH_BYTES)
		port_flush(p);
	p->making = true;
	p->out.len = p->n_made; /* an error may have cut the last one short */
	p->out.failed = false;
	if (p->n_made == 0 && p->out.cap > ((size_t)1 << 20))
		buf_fini(&p->out);
	p->out.max = p->n_made + VM_FRAME_BYTES_MAX;
	at = frame_begin(&p->out);
	cbor_put_array(&p->out, 2 + n_elements);
	cbor_put_uint(&p->out, type);
	cbor_put_uint(&p->out, carrier);
	return at;
}

static void port_write(struct vm_port *p)
{
	size_t done = 0;

	p->writing = true;
	while (done < p->n_made) {
		ssize_t n = write(p->fd, p->out.data + done, p->n_made - done);

		if (n >= 0) {
			done += (size_t)n;
		} else if (errno == EAGAIN) {
			struct pollfd pfd = { .fd = p->fd, .events = POLLOUT };

			poll(&pfd, 1, -1);
		} else if (errno != EINTR) {
			port_gone();
		}
	}
	p->writing = false;
	p->n_made = 0;
	buf_clear(&p->out);
}

void port_flush(struct vm_port *p)
{
	if (p->n_made == 0)
		return;
	p->making = true;
	port_write(p);
	p->making = false;
}

void port_flush_alarm(struct vm_port *p)
{
	if (!p->making)
		port_flush(p);
}

void port_drop(struct vm_port *p)
{
	p->out.len = p->n_made;
	p->out.failed = false;
	p->making = false;
}

int port_send_later(struct vm_port *p, size_t at)
{
	int rc = buf_check(&p->out);

	if (rc == 0) {
		frame_end(&p->out, at);
		p->n_made = p->out.len;
	}
	p->making = false;
	return rc;
}

int port_send(struct vm_port *p, size_t at)
{
	int rc = port_send_later(p, at);

	port_flush(p);
	return rc;
}

static struct vm_carrier *port_find(const struct vm_port *p, uint64_t number)
{
	return map_find(p->carriers, &number, sizeof number);
}

static int on_start(struct vm_port *p, uint64_t number, struct cbor_cursor *c)
{
	struct vm_carrier *v = NULL;
	int rc;

	if (port_find(p, number))
		return ERR_EXISTS;
	if (map_size(p->carriers) >= VM_CARRIERS_MAX)
		return ERR_FULL;
	rc = carrier_start(p, number, c, &v);
	if (rc)
		return rc;
	map_put(p->carriers, &v->number, sizeof v->number, v);
	sched_charge(v);
	return 0;
}

static int on_end(struct vm_carrier *c, struct cbor_cursor *cur)
{
	struct vm_port *p = c->port;
	uint64_t number = c->number;
	int64_t cpu_us;
	size_t at;

	cbor_close(cur);
	if (cbor_finish(cur))
		return ERR_MALFORMED;
	map_del(p->carriers, &c->number, sizeof c->number);
	sched_charge(c);
	cpu_us = c->cpu_us;
	carrier_free(c);
	at = port_begin(p, 1, VM_FORGOTTEN, number);
	cbor_put_uint(&p->out, (uint64_t)cpu_us);
	return port_send(p, at);
}

static int on_pause(struct vm_carrier *c, struct cbor_cursor *cur)
{
	bool pause = cbor_bool(cur);

	cbor_close(cur);
	if (cbor_finish(cur))
		return ERR_MALFORMED;
	sched_pause(c, pause);
	return 0;
}

static int on_run(struct vm_carrier *c, struct cbor_cursor *cur)
{
	cbor_close(cur);
	return cbor_finish(cur) ? ERR_MALFORMED : carrier_let_run(c);
}

static int on_charge(struct vm_carrier *c, struct cbor_cursor *cur)
{
	uint64_t us = cbor_uint(cur, INT64_MAX);

	cbor_close(cur);
	if (cbor_finish(cur))
		return ERR_MALFORMED;
	sched_owes(c, (int64_t)us);
	return 0;
}

/* Negative: the frame breaks the rules. */
static int port_frame(struct vm_port *p, struct slice frame)
{
	struct cbor_cursor c;
	int type = frame_open(&c, frame);
	uint64_t number = cbor_uint(&c, UINT64_MAX);
	struct vm_carrier *v;

	if (type < 0 || c.rc)
		return ERR_MALFORMED;
	if (type == VM_START)
		return on_start(p, number, &c);
	v = port_find(p, number);
	if (!v)
		return ERR_NOT_FOUND;
	switch (type) {
	case VM_DELIVER:
		return carrier_deliver(v, &c);
	case VM_DONE:
		return carrier_done(v, &c);
	case VM_END:
		return on_end(v, &c);
	case VM_LIMITS:
		return carrier_limits(v, &c);
	case VM_PAUSE:
		return on_pause(v, &c);
	case VM_CHARGE:
		return on_charge(v, &c);
	case VM_RUN:
		return on_run(v, &c);
	default:
		return ERR_MALFORMED;
	}
}

static int port_read(struct vm_port *p)
{
	struct slice frame;
	ssize_t n;
	int rc;

	if (buf_reserve(&p->in.in, READ_BYTES))
		return ERR_NOMEM;
	n = read(p->fd, p->in.in.data + p->in.in.len, READ_BYTES);
	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
		port_gone();
	if (n > 0)
		p->in.in.len += (size_t)n;
	while ((rc = frame_next(&p->in, &frame)) == 0) {
		rc = port_frame(p, frame);
		if (rc < 0)
			return rc;
	}
	return rc == ERR_AGAIN ? 0 : rc;
}

static void send_ready(struct vm_port *p)
{
	size_t at = frame_begin(&p->out);

	cbor_put_array(&p->out, 2);
	cbor_put_uint(&p->out, VM_READY);
	cbor_put_uint(&p->out, VM_PROTOCOL);
	port_send(p, at);
}

static void port_fini(struct vm_port *p)
{
	struct vm_carrier *c;
	size_t it = 0;

	while ((c = map_next(p->carriers, &it, NULL, NULL)))
		carrier_free(c);
	map_free(p->carriers);
	code_forget();
	codec_fini(&p->codec);
	buf_fini(&p->enc);
	buf_fini(&p->enc_state);
	buf_fini(&p->in.in);
	buf_fini(&p->out);
	free(p);
}

int port_serve(int fd)
{
	struct vm_port *p = mem_new(struct vm_port);
	int rc = 0;

	p->fd = fd;
	p->carriers = map_new();
	p->in.max = VM_FRAME_BYTES_MAX;
	p->in.in.max = VM_FRAME_BYTES_MAX + 2 * READ_BYTES;
	sched_init(p);
	lazy_init();
	send_ready(p);
	while (rc == 0) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		int timeout = sched_turn(p);

		port_flush(p);
		if (p->enc.cap > ENC_KEEP_BYTES)
			buf_fini(&p->enc);
		vm_sched.came = 0;
		if (poll(&pfd, 1, timeout) > 0)
			rc = port_read(p);
	}
	port_flush(p);
	port_fini(p);
	return 1;
}
