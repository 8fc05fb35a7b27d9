/*
 * Byte streams: see conn.h.
 *
 * What a turn collected in `out` is given to the operating system at once. Only what it did not
 * take waits, in `flight`, for a uv_write, of which at most one exists for each conn: libuv's own
 * way of writing costs an epoll_ctl and another turn of the loop for each write. The turn is an
 * idle handle, started when there is something to do: idle handles run before the loop would
 * sleep, and an active one keeps it from sleeping wherever it was started from.
 */
#include "loop/conn.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

#define CONN_TAG 0x636f6e6eu
#ifdef TOS_HOSTILE
#define READ_BYTES 61u /* every frame comes in pieces */
#else
#define READ_BYTES (64u << 10)
#endif
#define TURN_WRITES      4 /* then the others' turn */
#define QUEUE_DEFAULT    (8u << 20)
#define KEEP_BYTES       (256u << 10) /* a larger buffer is given back after use */
#define LINGER_MAX_BYTES (16u << 20)  /* a peer that sends for ever while we say goodbye */

struct conn {
	uint32_t tag;
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} u;
	uv_idle_t idle;
	uv_timer_t linger;
	uv_connect_t connect;
	uv_write_t write;
	uv_shutdown_t shutdown;
	const struct conn_callbacks *cb;
	void *arg;
	struct buf out, flight;
	size_t max_queue;
	size_t drained_bytes;
	uint64_t written; /* given to uv_write */
	unsigned handles; /* still to be closed */
	bool writing, reading, open, kicked;
	bool finishing, shut, closing;
	int rc;
	char why[256];
};

/* One loop a process: libuv hands the bytes over before it asks for the next buffer. Not thread-local, which
 * would cost each thread as much. */
static uint8_t read_bytes[READ_BYTES];

int err_from_uv(int uv)
{
	switch (uv) {
	case 0:
		return 0;
	case UV_EOF:
	case UV_ECONNRESET:
	case UV_EPIPE:
	case UV_ECONNABORTED:
	case UV_ENOTCONN:
		return ERR_CLOSED;
	case UV_ECONNREFUSED:
	case UV_EHOSTUNREACH:
	case UV_ENETUNREACH:
	case UV_ENETDOWN:
	case UV_EADDRNOTAVAIL:
	case UV_EAI_NONAME:
	case UV_EAI_AGAIN:
	case UV_EAI_FAIL:
	case UV_EAI_NODATA:
		return ERR_UNREACHABLE;
	case UV_ETIMEDOUT:
		return ERR_TIMEOUT;
	case UV_ENOMEM:
		return ERR_NOMEM;
	case UV_ECANCELED:
		return ERR_CANCELLED;
	default:
		return ERR_IO;
	}
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct conn *c = TAGGED(handle->data, struct conn, CONN_TAG);

	must(c->handles > 0);
	if (--c->handles > 0)
		return;
	c->cb->closed(c->arg, c, c->rc, c->why);
	buf_fini(&c->out);
	buf_fini(&c->flight);
	c->tag = 0;
	free(c);
}

void conn_close(struct conn *c, int rc, const char *why)
{
	if (c->closing)
		return;
	c->closing = true;
	if (!c->finishing) { /* else the first reason stands */
		c->rc = rc;
		snprintf(c->why, sizeof(c->why), "%s", why ? why : "");
	}
	uv_close(&c->u.handle, on_handle_closed);
	uv_close((uv_handle_t *)&c->idle, on_handle_closed);
	uv_close((uv_handle_t *)&c->linger, on_handle_closed);
}

static void close_uv(struct conn *c, int uv)
{
	conn_close(
		c, err_from_uv(uv), uv == UV_EOF ? "the other side closed" : uv_strerror(uv));
}

int conn_new(uv_loop_t *loop, enum conn_kind kind, const struct conn_callbacks *cb, void *arg,
	struct conn **out, struct errmsg *em)
{
	struct conn *c = mem_new(struct conn);
	int rc = kind == CONN_TCP ? uv_tcp_init(loop, &c->u.tcp)
				  : uv_pipe_init(loop, &c->u.pipe, 0);

	if (rc < 0) {
		free(c);
		return err_set(
			em, err_from_uv(rc), "cannot make a socket: %s", uv_strerror(rc));
	}
	c->tag = CONN_TAG;
	uv_idle_init(loop, &c->idle);
	uv_timer_init(loop, &c->linger);
	c->handles = 3;
	c->u.handle.data = c->idle.data = c->linger.data = c;
	c->cb = cb;
	c->arg = arg;
	c->max_queue = QUEUE_DEFAULT;
	*out = c;
	return 0;
}

/* ---- reading */

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *b)
{
	(void)handle;
	(void)wanted;
	*b = uv_buf_init((char *)read_bytes, sizeof(read_bytes));
}

/* While we say goodbye the peer's bytes are read and dropped: closing a socket with unread
 * bytes in it makes TCP reset the connection, and our last words would be lost. */
static void drain(struct conn *c, ssize_t n)
{
	c->drained_bytes += n > 0 ? (size_t)n : 0;
	if (n < 0 || c->drained_bytes > LINGER_MAX_BYTES)
		conn_close(c, c->rc, NULL);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
	struct conn *c = TAGGED(stream->data, struct conn, CONN_TAG);

	if (c->closing)
		return;
	if (c->finishing)
		drain(c, n);
	else if (n < 0)
		close_uv(c, (int)n);
	else if (n > 0)
		c->cb->bytes(c->arg, c, (const uint8_t *)b->base, (size_t)n); /* hands off c */
}

void conn_pause(struct conn *c)
{
	if (c->reading && !c->closing && !c->finishing) {
		uv_read_stop(&c->u.stream);
		c->reading = false;
	}
}

void conn_resume(struct conn *c)
{
	int rc;

	if (c->reading || c->closing || !c->open)
		return;
	rc = uv_read_start(&c->u.stream, on_alloc, on_read);
	if (rc < 0) {
		close_uv(c, rc);
		return;
	}
	c->reading = true;
}

/* ---- writing */

static void turn(struct conn *c);

static void on_written(uv_write_t *w, int status)
{
	struct conn *c = TAGGED(w->data, struct conn, CONN_TAG);

	c->writing = false;
	buf_clear(&c->flight);
	if (c->flight.cap > KEEP_BYTES)
		buf_fini(&c->flight);
	if (c->closing) /* may come with status 0 after uv_close */
		return;
	if (status < 0)
		close_uv(c, status);
	else
		turn(c);
}

static void on_shutdown(uv_shutdown_t *s, int status)
{
	struct conn *c = TAGGED(s->data, struct conn, CONN_TAG);

	if (status < 0)
		conn_close(c, c->rc, NULL);
	/* else the peer's end of file or the linger timer closes */
}

/* The rest of a write that was not taken whole. */
static void write_rest(struct conn *c, size_t done)
{
	struct buf was = c->flight;
	uv_buf_t b;
	int rc;

	c->flight = c->out;
	c->out = was;
	c->writing = true;
	c->write.data = c;
	b = uv_buf_init((char *)c->flight.data + done, (unsigned)(c->flight.len - done));
	rc = uv_write(&c->write, &c->u.stream, &b, 1, on_written);
	if (rc < 0) {
		c->writing = false;
		close_uv(c, rc);
	}
}

/* True if all of it was taken. */
static bool write_out(struct conn *c)
{
	uv_buf_t b = uv_buf_init((char *)c->out.data, (unsigned)c->out.len);
	int n = uv_try_write(&c->u.stream, &b, 1);

	if (n < 0 && n != UV_EAGAIN) {
		close_uv(c, n);
		return false;
	}
	c->written += c->out.len;
	if (n < 0 || (size_t)n < c->out.len) {
		write_rest(c, n < 0 ? 0 : (size_t)n);
		return false;
	}
	buf_clear(&c->out);
	if (c->out.cap > KEEP_BYTES)
		buf_fini(&c->out);
	return true;
}

static void say_end_of_file(struct conn *c)
{
	c->shut = true;
	c->shutdown.data = c;
	if (uv_shutdown(&c->shutdown, &c->u.stream, on_shutdown) < 0)
		conn_close(c, c->rc, NULL);
}

static void turn(struct conn *c)
{
	for (int i = 0; i < TURN_WRITES; i++) {
		if (c->closing || c->writing || !c->open || c->shut)
			return;
		if (c->cb->turn)
			c->cb->turn(c->arg, c, &c->out);
		if (c->closing)
			return;
		if (c->out.failed) {
			conn_close(c, ERR_NOMEM, "");
			return;
		}
		if (c->out.len == 0) {
			if (c->finishing)
				say_end_of_file(c);
			return;
		}
		if (!write_out(c))
			return;
	}
	conn_kick(c);
}

static void on_idle(uv_idle_t *idle)
{
	struct conn *c = TAGGED(idle->data, struct conn, CONN_TAG);

	uv_idle_stop(idle);
	c->kicked = false;
	turn(c);
}

void conn_kick(struct conn *c)
{
	if (c->kicked || c->closing)
		return;
	c->kicked = true;
	uv_idle_start(&c->idle, on_idle);
}

size_t conn_queued(const struct conn *c)
{
	/* Once closing, libuv's count is about a socket that is gone. */
	return c->out.len + (c->writing ? uv_stream_get_write_queue_size(&c->u.stream) : 0);
}

uint64_t conn_taken(const struct conn *c)
{
	return c->written - uv_stream_get_write_queue_size(&c->u.stream);
}

void conn_set_max_queue(struct conn *c, size_t bytes)
{
	c->max_queue = bytes;
}

int conn_send(struct conn *c, const void *p, size_t n)
{
	size_t queued = conn_queued(c);

	if (c->closing || c->finishing)
		return ERR_CLOSED;
	if (n > c->max_queue || queued > c->max_queue - n)
		return ERR_FULL;
	if (buf_reserve(&c->out, n) < 0) {
		c->out.failed = false; /* nothing was added: the caller has its answer */
		return ERR_NOMEM;
	}
	buf_add(&c->out, p, n);
	conn_kick(c);
	return 0;
}

/* ---- opening */

static int opened(struct conn *c, struct errmsg *em)
{
	int rc;

	c->open = true;
	rc = uv_read_start(&c->u.stream, on_alloc, on_read);
	if (rc < 0)
		return err_set(em, err_from_uv(rc), "cannot read from the socket: %s",
			uv_strerror(rc));
	c->reading = true;
	if (c->out.len > 0)
		conn_kick(c);
	return 0;
}

/* libuv takes any descriptor, and aborts when epoll doesn't. */
static int check_socket(int fd, struct errmsg *em)
{
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return err_errno(em, "descriptor %d is no socket", fd);
	if (type != SOCK_STREAM)
		return err_set(em, ERR_IO, "descriptor %d is no stream socket", fd);
	return 0;
}

int conn_open(struct conn *c, int fd, struct errmsg *em)
{
	int rc = check_socket(fd, em);

	if (rc < 0)
		return rc;
	rc = c->u.handle.type == UV_TCP ? uv_tcp_open(&c->u.tcp, fd)
					: uv_pipe_open(&c->u.pipe, fd);
	if (rc < 0)
		return err_set(
			em, err_from_uv(rc), "cannot use the socket: %s", uv_strerror(rc));
	return opened(c, em);
}

int conn_accept(struct conn *c, uv_stream_t *listener, struct errmsg *em)
{
	int rc = uv_accept(listener, &c->u.stream);

	if (rc < 0)
		return err_set(em, err_from_uv(rc), "cannot accept: %s", uv_strerror(rc));
	return opened(c, em);
}

static void on_connect(uv_connect_t *req, int status)
{
	struct conn *c = TAGGED(req->data, struct conn, CONN_TAG);
	struct errmsg em = { "" };
	int rc;

	if (c->closing)
		return;
	if (status < 0) {
		close_uv(c, status);
		return;
	}
	rc = opened(c, &em);
	if (rc < 0)
		conn_close(c, rc, em.text);
	else if (c->finishing)
		conn_kick(c);
	else if (c->cb->connected)
		c->cb->connected(c->arg, c);
}

int conn_connect(struct conn *c, const struct sockaddr *sa, struct errmsg *em)
{
	int rc;

	must(c->u.handle.type == UV_TCP);
	c->connect.data = c;
	rc = uv_tcp_connect(&c->connect, &c->u.tcp, sa, on_connect);
	if (rc < 0)
		return err_set(em, err_from_uv(rc), "cannot connect: %s", uv_strerror(rc));
	return 0;
}

/* ---- closing with last words */

static void on_linger(uv_timer_t *t)
{
	struct conn *c = TAGGED(t->data, struct conn, CONN_TAG);

	conn_close(c, c->rc, NULL);
}

void conn_finish(struct conn *c, int rc, const char *why, uint32_t linger_ms)
{
	if (c->closing || c->finishing)
		return;
	if (!c->open) {
		conn_close(c, rc, why);
		return;
	}
	c->finishing = true;
	c->rc = rc;
	snprintf(c->why, sizeof(c->why), "%s", why ? why : "");
	conn_resume(c); /* a paused one must see the peer's end of file too */
	uv_update_time(c->linger.loop);
	uv_timer_start(&c->linger, on_linger, linger_ms, 0);
	conn_kick(c);
}

bool conn_closing(const struct conn *c)
{
	return c->closing || c->finishing;
}

int conn_fd(const struct conn *c)
{
	uv_os_fd_t fd;

	return uv_fileno(&c->u.handle, &fd) == 0 ? fd : -1;
}
