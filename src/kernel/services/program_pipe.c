/* The pipes of a program: what it writes is kept until it is read, up to a bound, and what is written
 * to it waits for room. See programs.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "kernel/services/programs.h"

#define READ_BYTES 65536

struct program_pipe {
	uv_poll_t poll;
	struct program *p; /* NULL: closing */
	int fd, which;     /* 0 stdin */
	bool stalled;      /* what is kept is at its bound */
	bool close;        /* once all is written */
	struct buf waiting;
};

static void on_closed(uv_handle_t *h)
{
	struct program_pipe *q = h->data;

	mem_close(q->fd);
	buf_fini(&q->waiting);
	free(q);
}

static void pipe_close(struct program_pipe **at)
{
	struct program_pipe *q = *at;

	if (!q)
		return;
	*at = NULL;
	if (q->which == 0 && q->p->stays && q->p->state != PROGRAM_ENDED)
		child_input_ends(q->p->k, q->p);
	q->p = NULL;
	uv_close((uv_handle_t *)&q->poll, on_closed);
}

static struct program_pipe **slot_of(struct program_pipe *q)
{
	return q->which == 0 ? &q->p->in : &q->p->out[q->which - 1];
}

static void keep(struct program *p, int which, const void *bytes, size_t n)
{
	struct program_chunk *c = mem_zero(sizeof(*c) + n);

	c->which = which;
	c->n = n;
	memcpy(c->bytes, bytes, n);
	list_add(&p->chunks, &c->node);
	p->kept += n;
	p->written[which - 1] += n;
}

static void on_output(uv_poll_t *poll, int status, int events)
{
	struct program_pipe *q = poll->data;
	struct program *p = q->p;
	static char block[READ_BYTES];
	ssize_t n;

	(void)events;
	if (!p)
		return;
	n = status == 0 ? read(q->fd, block, sizeof(block)) : 0;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		keep(p, q->which, block, (size_t)n);
	if (n > 0 && p->kept >= PROGRAM_OUTPUT_MAX) {
		q->stalled = true;
		uv_poll_stop(poll);
	}
	if (n <= 0)
		pipe_close(slot_of(q));
	program_wrote(p);
}

static void on_input(uv_poll_t *poll, int status, int events)
{
	struct program_pipe *q = poll->data;
	ssize_t n = 0;

	(void)events;
	if (!q->p)
		return;
	if (status == 0 && q->waiting.len)
		n = write(q->fd, q->waiting.data, q->waiting.len);
	if (status != 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		pipe_close(slot_of(q)); /* it reads no more */
		return;
	}
	if (n > 0)
		buf_shift(&q->waiting, (size_t)n);
	if (q->waiting.len)
		return;
	uv_poll_stop(poll);
	if (q->close)
		pipe_close(slot_of(q));
}

static struct program_pipe *pipe_new(struct program *p, int fd, int which)
{
	struct program_pipe *q = mem_new(struct program_pipe);

	fcntl(fd, F_SETFL, O_NONBLOCK);
	q->p = p;
	q->fd = fd;
	q->which = which;
	q->waiting = (struct buf)BUF_MAX(PROGRAM_INPUT_MAX);
	if (uv_poll_init(p->k->loop, &q->poll, fd) != 0) {
		mem_close(fd);
		free(q);
		return NULL;
	}
	q->poll.data = q;
	return q;
}

int pipes_open(struct program *p, const int fds[3])
{
	p->in = pipe_new(p, fds[0], 0);
	p->out[0] = pipe_new(p, fds[1], 1);
	p->out[1] = pipe_new(p, fds[2], 2);
	if (!p->out[0] || !p->out[1]) { /* what was kept may have no stdin any more */
		pipes_close(p);
		return ERR_IO;
	}
	for (int i = 0; i < 2; i++)
		uv_poll_start(&p->out[i]->poll, UV_READABLE, on_output);
	return 0;
}

void pipes_close(struct program *p)
{
	pipe_close(&p->in);
	pipe_close(&p->out[0]);
	pipe_close(&p->out[1]);
}

bool pipes_ended(const struct program *p)
{
	return !p->out[0] && !p->out[1];
}

void pipes_go_on(struct program *p)
{
	for (int i = 0; i < 2; i++) {
		struct program_pipe *q = p->out[i];

		if (!q || !q->stalled || p->kept >= PROGRAM_OUTPUT_MAX)
			continue;
		q->stalled = false;
		uv_poll_start(&q->poll, UV_READABLE, on_output);
	}
}

int pipes_write(struct program *p, const void *bytes, size_t n, bool close)
{
	struct program_pipe *q = p->in;

	if (!q || q->close)
		return ERR_CLOSED;
	if (n && buf_add(&q->waiting, bytes, n) < 0) {
		q->waiting.failed = false;
		return ERR_FULL;
	}
	q->close = close;
	if (q->waiting.len)
		uv_poll_start(&q->poll, UV_WRITABLE, on_input);
	else if (close)
		pipe_close(&p->in);
	return 0;
}
