/*
 * The processes that tosd always wants, tos-kernel and its launchers: their sockets and pidfds, and how
 * long is waited before one that ends is started again.
 */
#include "tosd/supervise.h"

#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 10000
#define ALIVE_MS       30000 /* alive so long: the next back-off starts small again */
#define BATCH          64 /* messages read from one socket before the others get their turn */

void watch_add(int fd, uint32_t id, uint32_t events)
{
	struct epoll_event ev = { events, { .u64 = id } };

	must(epoll_ctl(super.epoll, EPOLL_CTL_ADD, fd, &ev) == 0);
}

void watch_change(struct peer *p, uint32_t id, uint32_t events)
{
	struct epoll_event ev = { events, { .u64 = id } };

	if (p->fd < 0 || p->events == events)
		return;
	must(epoll_ctl(super.epoll, EPOLL_CTL_MOD, p->fd, &ev) == 0);
	p->events = events;
}

/* Read a batch. Returns 0, or why the peer must be ended; ERR_CLOSED when it has closed. */
int peer_read(struct peer *p, const struct ipc_rule *rules, size_t n_rules, bool bounded,
	void *arg, struct errmsg *em)
{
	static union {
		struct tosd_head head;
		struct tosd_spawn_program largest;
		struct launch_reply reply;
	} msg;

	for (int i = 0; i < BATCH && p->fd >= 0; i++) {
		int fds[IPC_FDS_MAX], rc;
		size_t n, n_fds;

		if (bounded && super.free_head == NIL)
			return 0;
		rc = ipc_recv(p->fd, &msg, sizeof(msg), &n, fds, ARRAY_LEN(fds), &n_fds, em);
		if (rc == ERR_AGAIN)
			return 0;
		if (rc == 0)
			rc = ipc_dispatch(
				rules, n_rules, super.phase, arg, &msg, n, fds, n_fds, em);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void peer_close(struct peer *p)
{
	if (p->fd >= 0)
		mem_close(p->fd); /* takes it out of epoll: nobody else holds a copy */
	p->fd = -1;
}

static void backoff_more(struct peer *p)
{
	int64_t most = super.t->config.restart_ms;

	if (most < BACKOFF_MIN_MS)
		most = BACKOFF_MAX_MS;
	p->backoff_ms = p->backoff_ms * 2 < most ? p->backoff_ms * 2 : most;
}

void peer_reaped(struct peer *p)
{
	int64_t now = clock_ms();

	peer_close(p);
	mem_close(p->pidfd);
	p->pidfd = -1;
	p->pid = 0;
	if (now - p->since_ms >= ALIVE_MS || p->backoff_ms == 0)
		p->backoff_ms = BACKOFF_MIN_MS;
	else
		backoff_more(p);
	/* From one start to the next: who ran that long is started at once. */
	p->next_ms = p->since_ms + p->backoff_ms;
}

void peer_started(struct peer *p, pid_t pid, int pidfd, int fd, uint32_t id)
{
	p->pid = pid;
	p->fd = fd;
	p->pidfd = pidfd;
	p->since_ms = clock_ms();
	p->events = EPOLLIN;
	watch_add(fd, id, EPOLLIN);
	watch_add(p->pidfd, id + 1, EPOLLIN);
}

void peer_later(struct peer *p)
{
	if (p->backoff_ms)
		backoff_more(p);
	else
		p->backoff_ms = BACKOFF_MIN_MS;
	p->next_ms = clock_ms() + p->backoff_ms;
}
