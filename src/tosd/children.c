/*
 * The table of tos-kernel's children: a row each from the request until its end has been told. A row
 * stays until its news has been sent; what there is to send is read off the table, never queued.
 */
#include "tosd/supervise.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/mem.h"

/* It goes on without the kernel that asked for it. One that is to end does not: no kernel would be told
 * of it, and its row would never be free. */
static bool child_stays(const struct child *c)
{
	return c->program && c->program->stays && !c->kill_wanted && !super.stopping;
}

struct child *child_find(uint64_t slot)
{
	for (uint32_t i = 0; i < TOSD_CHILDREN; i++)
		if (super.child[i].state != CHILD_FREE && !super.child[i].orphan &&
			super.child[i].slot == slot)
			return &super.child[i];
	return NULL;
}

struct child *child_take(void)
{
	uint32_t i = super.free_head;
	struct child *c;

	if (i == NIL)
		return NULL;
	c = &super.child[i];
	super.free_head = c->next;
	memset(c, 0, sizeof(*c));
	c->pidfd = c->fd = c->library = -1;
	c->next = NIL;
	super.n_children++;
	return c;
}

void child_drop(struct child *c)
{
	if (c->fd >= 0)
		mem_close(c->fd);
	if (c->pidfd >= 0)
		mem_close(c->pidfd);
	if (c->library >= 0) /* it was never launched */
		mem_close(c->library);
	c->fd = c->pidfd = c->library = -1;
	program_drop(c->program);
	c->program = NULL;
	super.n_orphans -= c->orphan;
	c->orphan = false;
	c->state = CHILD_FREE;
	c->next = super.free_head;
	super.free_head = (uint32_t)(c - super.child);
	super.n_children--;
}

/* News for tos-kernel; without one it is nobody's. */
void child_news(struct child *c, enum child_state state)
{
	bool had = c->state == CHILD_STARTED || c->state == CHILD_FAILED ||
		   c->state == CHILD_DEAD || c->state == CHILD_KEPT;

	c->state = state;
	if (super.kernel.fd < 0 && child_stays(c) && state != CHILD_FAILED) {
		if (had)
			super.unsent--;
		c->state = CHILD_RUNNING; /* the next kernel is told */
		c->died_early = state == CHILD_DEAD;
		return;
	}
	if (super.kernel.fd < 0 || c->orphan) {
		if (had)
			super.unsent--;
		if (state == CHILD_STARTED)
			c->state = CHILD_RUNNING;
		else
			child_drop(c);
		return;
	}
	if (!had)
		super.unsent++;
}

void child_failed(struct child *c, int rc, const char *text)
{
	c->rc = rc;
	snprintf(c->text, sizeof(c->text), "%s", text);
	child_news(c, CHILD_FAILED);
}

/* It can be signalled: it was made, and its death has not been heard of. */
bool child_runs(const struct child *c)
{
	return c->pidfd >= 0 && !c->died_early && c->state != CHILD_DEAD;
}

void child_kill(struct child *c)
{
	c->kill_wanted = true;
	if (child_runs(c)) {
		c->killed = true;
		pidfd_signal(c->pidfd, SIGKILL);
	}
}

static uint32_t cause_of(const struct child *c, int status, uint64_t cpu_us)
{
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	/* The limit counts timer ticks, rusage run time: on a busy virtual machine the latter
	 * lags far behind. Nobody but us, the limit and the system's memory killer sends
	 * SIGKILL. */
	bool spent = c->cpu_s && cpu_us >= (uint64_t)c->cpu_s * 500000;

	if (!sig)
		return TOSD_EXITED;
	if (sig == SIGSYS)
		return TOSD_SECCOMP;
	if (sig == SIGKILL && c->killed)
		return TOSD_KILLED;
	if (sig == SIGXCPU || (sig == SIGKILL && spent))
		return TOSD_CPU_LIMIT;
	return TOSD_SIGNALLED;
}

void child_reap(struct child *c)
{
	struct sandbox_report report = { 0 };
	struct rusage u = { 0 };
	int status;

	if (wait4(c->pid, &status, WNOHANG, &u) != c->pid)
		return;
	epoll_ctl(super.epoll, EPOLL_CTL_DEL, c->pidfd, NULL);
	c->died = (struct tosd_died){ .head = { TOSD_MSG_VERSION, TOSD_DIED, sizeof(c->died) },
		.slot = c->slot,
		.status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
		.cpu_us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
			  (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec),
		.peak_bytes = (uint64_t)u.ru_maxrss * 1024 };
	if (c->program && program_report(c->program, &report)) {
		status = report.status;
		c->died.status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
		if (report.held > c->died.peak_bytes)
			c->died.peak_bytes = report.held;
	}
	c->died.cause = report.over ? TOSD_MEMORY_LIMIT : cause_of(c, status, c->died.cpu_us);
	log_info("sandbox ended", KV_STR("label", c->label), KV_INT("pid", c->pid),
		KV_INT("cause", c->died.cause), KV_INT("status", c->died.status));
	if (c->state == CHILD_STARTED || c->state == CHILD_KEPT)
		c->died_early = true; /* SPAWNED is sent first */
	else
		child_news(c, CHILD_DEAD);
}

/* Programs that wait for the next kernel: they do not keep it from being started. */
static void kept_count(void)
{
	super.n_kept = 0;
	for (uint32_t i = 0; i < TOSD_CHILDREN; i++)
		if (super.child[i].state == CHILD_RUNNING && child_stays(&super.child[i]))
			super.n_kept++;
}

/* It is ended, and its row and its number are its own until it is dead. */
static void child_orphan(struct child *c)
{
	super.n_orphans += !c->orphan;
	c->orphan = true;
	child_kill(c);
}

/* tos-kernel is gone: nobody is left to whom its children belong. */
void children_end(void)
{
	for (uint32_t i = 0; i < TOSD_CHILDREN; i++) {
		struct child *c = &super.child[i];
		bool stays = child_stays(c);

		switch (c->state) {
		case CHILD_FREE:
			break;
		case CHILD_QUEUED:
		case CHILD_FAILED:
			child_drop(c);
			break;
		case CHILD_DEAD:
			if (stays) {
				c->state = CHILD_RUNNING;
				c->died_early = true;
			} else {
				child_drop(c);
			}
			break;
		case CHILD_KEPT:
		case CHILD_STARTED:
			if (stays) {
				c->state = CHILD_RUNNING;
				break;
			}
			if (c->died_early) {
				child_drop(c);
				break;
			}
			c->state = CHILD_RUNNING;
			child_orphan(c);
			break;
		case CHILD_LAUNCHING:
		case CHILD_RUNNING:
			if (c->died_early && !stays)
				child_drop(c);
			else if (c->state == CHILD_LAUNCHING || !stays)
				child_orphan(c);
			break;
		}
	}
	makers_forget();
	kept_count();
	super.unsent = 0;
}

/* What has outlived the last kernel is the next one's to hear of. */
void kept_offer(void)
{
	for (uint32_t i = 0; i < TOSD_CHILDREN; i++) {
		struct child *c = &super.child[i];

		if (c->state != CHILD_RUNNING || !child_stays(c))
			continue;
		c->state = CHILD_KEPT;
		super.unsent++;
	}
	super.n_kept = 0;
}

void children_init(void)
{
	super.free_head = NIL;
	for (uint32_t i = TOSD_CHILDREN; i-- > 0;) {
		super.child[i].pidfd = super.child[i].fd = super.child[i].library = -1;
		super.child[i].next = super.free_head;
		super.free_head = i;
	}
}
