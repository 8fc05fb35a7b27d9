/* Framed streams: see stream.h. Bytes are conn's; frames are cut here. */
#include "loop/stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "loop/conn.h"

#define STREAM_TAG 0x73747265u

struct stream {
	uint32_t tag;
	struct conn *conn;
	const struct stream_callbacks *cb; /* NULL: was never opened */
	void *arg;
	struct frame_reader in;
	bool paused, busy; /* busy: queued bytes whose end has not been reported */
};

static void cut_frames(struct stream *s)
{
	struct slice frame;
	int rc = 0;

	while (!s->paused && !conn_closing(s->conn) && (rc = frame_next(&s->in, &frame)) == 0)
		s->cb->frame(s->arg, s, frame);
	if (rc < 0 && rc != ERR_AGAIN)
		conn_close(s->conn, rc, err_text(rc));
}

static void on_bytes(void *arg, struct conn *c, const uint8_t *p, size_t n)
{
	struct stream *s = TAGGED(arg, struct stream, STREAM_TAG);
	int rc = buf_add(&s->in.in, p, n);

	if (rc < 0)
		conn_close(c, rc, err_text(rc));
	else
		cut_frames(s);
}

static void on_turn(void *arg, struct conn *c, struct buf *out)
{
	struct stream *s = TAGGED(arg, struct stream, STREAM_TAG);

	if (conn_closing(c))
		return;
	if (s->busy && out->len == 0) {
		s->busy = false;
		if (s->cb->drained)
			s->cb->drained(s->arg, s);
	}
	cut_frames(s); /* what a pause left behind */
}

static void on_closed(void *arg, struct conn *c, int rc, const char *why)
{
	struct stream *s = TAGGED(arg, struct stream, STREAM_TAG);

	(void)c;
	if (s->cb)
		s->cb->closed(s->arg, s, rc, why);
	buf_fini(&s->in.in);
	s->tag = 0;
	free(s);
}

static const struct conn_callbacks conn_cb = {
	.bytes = on_bytes,
	.turn = on_turn,
	.closed = on_closed,
};
int stream_open(uv_loop_t *loop, int fd, size_t max_frame, const struct stream_callbacks *cb,
	void *arg, struct stream **out, struct errmsg *em)
{
	struct stream *s = mem_new(struct stream);
	int rc;

	s->tag = STREAM_TAG;
	s->arg = arg;
	s->in.max = max_frame;
	rc = conn_new(loop, CONN_UNIX, &conn_cb, s, &s->conn, em);
	if (rc < 0) {
		mem_close(fd);
		free(s);
		return rc;
	}
	rc = conn_open(s->conn, fd, em);
	if (rc < 0) {
		if (conn_fd(s->conn) < 0)
			mem_close(fd);
		conn_close(s->conn, rc, NULL); /* nobody is told: s->cb is not set yet */
		return rc;
	}
	s->cb = cb;
	*out = s;
	return 0;
}

int stream_send(struct stream *s, const void *p, size_t n)
{
	int rc = conn_send(s->conn, p, n);

	if (rc == 0)
		s->busy = true;
	return rc;
}

int stream_send_fd(struct stream *s, const void *p, size_t n, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { (void *)(uintptr_t)p, n };
	struct msghdr m = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	ssize_t sent;

	if (conn_closing(s->conn) || conn_fd(s->conn) < 0)
		return ERR_CLOSED;
	if (conn_queued(s->conn))
		return ERR_AGAIN;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	do
		sent = sendmsg(conn_fd(s->conn), &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? ERR_AGAIN : ERR_CLOSED;
	return (size_t)sent < n ? stream_send(s, (const uint8_t *)p + sent, n - (size_t)sent)
				: 0;
}

size_t stream_queued(const struct stream *s)
{
	return conn_queued(s->conn);
}

void stream_set_max_queue(struct stream *s, size_t bytes)
{
	conn_set_max_queue(s->conn, bytes);
}

void stream_pause(struct stream *s)
{
	s->paused = true;
	conn_pause(s->conn);
}

void stream_resume(struct stream *s)
{
	if (!s->paused)
		return;
	s->paused = false;
	conn_resume(s->conn);
	conn_kick(s->conn);
}

void stream_close(struct stream *s)
{
	conn_close(s->conn, 0, "");
}

void stream_finish(struct stream *s, uint32_t linger_ms)
{
	conn_finish(s->conn, 0, "", linger_ms);
}

void *stream_data(const struct stream *s)
{
	return s->arg;
}
