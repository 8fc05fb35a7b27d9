/*
 * The launchers, and what waits for them: children are made in the order in which they were asked for,
 * a few at a time, and none beside what a dead kernel has left.
 */
#include "tosd/supervise.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define IN_FLIGHT_MAX 8
#define LAUNCH_MS     15000

static struct maker *maker_of(const struct child *c)
{
	return &super.maker[c->by];
}

static void launch_failed(struct child *c, int rc, const char *text)
{
	maker_of(c)->n_in_flight--;
	log_warning(
		"cannot start a sandbox", KV_STR("label", c->label), KV_STR("reason", text));
	child_failed(c, rc, text);
}

/* tos-vm gets the next uid in turn, so that one is used again as late as possible. */
static int32_t uid_for(const struct child *c)
{
	const struct tosd *t = super.t;
	uint32_t n = TOSD_UIDS - TOSD_UIDS_EXT;

	if (!t->host.own_uid)
		return -1;
	if (c->kind == TOSD_PROGRAM)
		return (int32_t)program_uid(t);
	if (c->kind == TOSD_EXT)
		return (int32_t)(t->uid_base + 1 + c->ext);
	return (int32_t)(t->uid_base + TOSD_UIDS_EXT + super.next_vm_uid++ % n);
}

static bool installed(const struct child *c)
{
	return c->kind == TOSD_EXT && c->ext >= TOSD_EXT_MAX;
}

static int launch(struct child *c, struct errmsg *em)
{
	const struct tosd *t = super.t;
	struct launch_request r = { .head = { TOSD_MSG_VERSION, LAUNCH_REQUEST, sizeof(r) },
		.index = (uint32_t)(c - super.child),
		.kind = c->kind,
		.address_bytes =
			c->address_bytes ? c->address_bytes : t->config.vm_address_bytes,
		.cpu_s = c->cpu_s };
	int library = -1, rc;

	if (c->program) {
		r.uid = uid_for(c);
		return program_launch(c->program, maker_of(c)->peer.fd, &r, em);
	}
	if (c->kind == TOSD_EXT && t->ext.fd < 0)
		return err_set(em, ERR_NOT_FOUND, "tos-ext is not installed beside tosd");
	if (installed(c)) {
		r.privileges = c->privileges;
		r.address_bytes = c->address_bytes;
		memcpy(r.name, c->label, sizeof(r.name));
		library = c->library;
		c->library = -1;
	} else if (c->kind == TOSD_EXT) {
		const char *path = t->config.ext[c->ext].path;

		r.privileges = t->privileges[c->ext];
		r.address_bytes = c->address_bytes;
		memcpy(r.name, t->config.ext[c->ext].name, sizeof(r.name));
		library = library_open(path, em);
		if (library < 0)
			return library;
	}
	r.uid = uid_for(c);
	rc = c->kind == TOSD_EXT ? grant_directory(t, c->ext, &r, em) : 0;
	if (rc < 0) {
		mem_close(library);
		return rc;
	}
	rc = ipc_send(super.maker[LAUNCHER_SANDBOXES].peer.fd, &r, sizeof(r), &library,
		library >= 0, em);
	if (rc == ERR_AGAIN && installed(c)) {
		c->library = library; /* to be asked again */
		return rc;
	}
	if (library >= 0)
		mem_close(library);
	return rc;
}

/* Not beside what a dead kernel has left: of a carrier, a program and an extension never two run
 * at a time, and none finds its port or file still taken. */
static void maker_launch(struct maker *m)
{
	while (super.n_orphans == 0 && m->queue_head != NIL && m->peer.fd >= 0 &&
		m->n_in_flight < IN_FLIGHT_MAX) {
		struct child *c = &super.child[m->queue_head];
		struct errmsg em = { "" };
		int rc = c->kill_wanted ? ERR_CANCELLED : launch(c, &em);

		if (rc == ERR_AGAIN)
			return; /* the answer to an earlier one brings us here again */
		m->queue_head = c->next;
		if (m->queue_head == NIL)
			m->queue_tail = NIL;
		c->next = NIL;
		m->n_in_flight++;
		if (rc < 0) {
			launch_failed(c, rc, err_show(rc, &em));
			continue;
		}
		c->state = CHILD_LAUNCHING;
		m->deadline_ms = clock_ms() + LAUNCH_MS;
	}
}

static int on_launched(void *arg, const void *msg, int *fds, size_t n_fds)
{
	const struct launch_reply *r = msg;
	struct child *c;

	struct maker *from = arg;
	size_t want = from == &super.maker[LAUNCHER_SANDBOXES] ? 2 : PROGRAM_FDS + 1;

	if (r->index >= TOSD_CHILDREN || super.child[r->index].state != CHILD_LAUNCHING ||
		maker_of(&super.child[r->index]) != from || n_fds != (r->rc == 0 ? want : 0u)) {
		for (size_t i = 0; i < n_fds; i++)
			mem_close(fds[i]);
		return ERR_MALFORMED;
	}
	c = &super.child[r->index];
	from->deadline_ms = clock_ms() + LAUNCH_MS;
	if (r->rc < 0) {
		char text[TOSD_TEXT_BYTES];

		snprintf(text, sizeof(text), "%.*s", (int)sizeof(r->text) - 1, r->text);
		/* It has given up by itself, or waits for something that will not come. */
		if (r->pid > 0) {
			kill(r->pid, SIGKILL);
			waitpid(r->pid, NULL, 0);
		}
		launch_failed(c, r->rc, text);
		return 0;
	}
	from->n_in_flight--;
	c->pid = r->pid;
	if (c->program)
		program_started(c->program, fds);
	else
		c->fd = fds[0];
	c->pidfd = fds[n_fds - 1];
	watch_add(c->pidfd, r->index, EPOLLIN);
	child_news(c, CHILD_STARTED);
	if (c->kill_wanted)
		child_kill(c);
	return 0;
}

static const struct ipc_rule launcher_rules[] = {
	{ LAUNCH_REPLY, PHASE_DOWN | PHASE_UP | PHASE_STOPPING | PHASE_ENDING,
		sizeof(struct launch_reply), IPC_ANY_FDS, on_launched },
};

void maker_queue(struct child *c)
{
	struct maker *m = maker_of(c);
	uint32_t i = (uint32_t)(c - super.child);

	if (strcmp(super.t->host.level, "none") == 0) {
		child_failed(c, ERR_SANDBOX,
			"this host offers no seccomp, so no carrier or extension may run");
		return;
	}
	m->wanted = true;
	if (m->queue_tail == NIL)
		m->queue_head = i;
	else
		super.child[m->queue_tail].next = i;
	m->queue_tail = i;
}

/* A sandbox whose maker died before it told us of it: our child all the same. It ends by
 * itself, since the other ends of its gate and socket died with the launcher. */
static void reap_strangers(void)
{
	siginfo_t si;

	for (;;) {
		si.si_pid = 0;
		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid == 0)
			return;
		if (si.si_pid == super.kernel.pid ||
			si.si_pid == super.maker[LAUNCHER_SANDBOXES].peer.pid ||
			si.si_pid == super.maker[LAUNCHER_PROGRAMS].peer.pid ||
			si.si_pid == super.maker[LAUNCHER_NETWORKED].peer.pid ||
			si.si_pid == reload_pid() || action_has(si.si_pid))
			return; /* has its own descriptor, which is looked at next */
		for (uint32_t i = 0; i < TOSD_CHILDREN; i++)
			if (super.child[i].state != CHILD_FREE &&
				super.child[i].pid == si.si_pid)
				return;
		waitpid(si.si_pid, NULL, WNOHANG);
	}
}

void maker_reap(struct maker *m)
{
	int status;

	if (waitpid(m->peer.pid, &status, WNOHANG) != m->peer.pid)
		return;
	log_error("launcher ended; starting it again", KV_INT("status", status));
	peer_reaped(&m->peer);
	for (uint32_t i = 0; i < TOSD_CHILDREN; i++)
		if (super.child[i].state == CHILD_LAUNCHING && maker_of(&super.child[i]) == m)
			launch_failed(&super.child[i], ERR_SANDBOX, "the launcher died");
	reap_strangers();
}

void maker_readable(struct maker *m)
{
	struct errmsg em = { "" };
	int rc = peer_read(&m->peer, launcher_rules, ARRAY_LEN(launcher_rules), false, m, &em);

	if (rc == 0)
		return;
	if (rc != ERR_CLOSED)
		log_error("launcher broke the protocol", KV_ERR(rc, &em));
	peer_close(&m->peer);
	if (m->peer.pidfd >= 0)
		pidfd_signal(m->peer.pidfd, SIGKILL);
}

void makers_init(void)
{
	for (uint32_t i = 0; i < LAUNCHERS; i++)
		super.maker[i] = (struct maker){ .peer = { .fd = -1, .pidfd = -1 },
			.wanted = i == LAUNCHER_SANDBOXES,
			.queue_head = NIL,
			.queue_tail = NIL };
}

void makers_start(int64_t now_ms)
{
	struct errmsg em = { "" };
	int fd, pidfd, pid;

	for (uint32_t i = 0; i < LAUNCHERS; i++) {
		struct maker *m = &super.maker[i];

		if (!m->wanted || m->peer.pid != 0 || m->peer.next_ms > now_ms ||
			super.stopping)
			continue;
		pid = launcher_start(super.t, (enum launcher_kind)i, &fd, &pidfd, &em);
		if (pid > 0) {
			peer_started(&m->peer, pid, pidfd, fd, WATCH_LAUNCHER + 2 * i);
		} else {
			log_error("cannot start the launcher", KV_ERR(pid, &em));
			peer_later(&m->peer);
		}
	}
}

void makers_expire(int64_t now_ms)
{
	for (uint32_t i = 0; i < LAUNCHERS; i++) {
		struct maker *m = &super.maker[i];

		if (m->n_in_flight == 0 || now_ms < m->deadline_ms || m->peer.pidfd < 0)
			continue;
		log_error("launcher hangs: killing it");
		pidfd_signal(m->peer.pidfd, SIGKILL);
		m->deadline_ms = now_ms + LAUNCH_MS;
	}
}

int64_t makers_deadline(void)
{
	int64_t at = INT64_MAX;

	for (uint32_t i = 0; i < LAUNCHERS; i++) {
		const struct maker *m = &super.maker[i];

		if (m->n_in_flight > 0 && m->deadline_ms < at)
			at = m->deadline_ms;
		if (m->wanted && m->peer.pid == 0 && !super.stopping && m->peer.next_ms < at)
			at = m->peer.next_ms;
	}
	return at;
}

void makers_turn(void)
{
	for (uint32_t i = 0; i < LAUNCHERS; i++)
		maker_launch(&super.maker[i]);
}

void makers_forget(void)
{
	for (uint32_t i = 0; i < LAUNCHERS; i++)
		super.maker[i].queue_head = super.maker[i].queue_tail = NIL;
}

void makers_end(void)
{
	for (uint32_t i = 0; i < LAUNCHERS; i++) {
		struct peer *p = &super.maker[i].peer;

		if (p->pid > 0) {
			pidfd_signal(p->pidfd, SIGKILL);
			waitpid(p->pid, NULL, 0);
		}
	}
}
