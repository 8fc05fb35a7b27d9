/*
 * The loop: one tos-kernel, two launchers, up to TOSD_CHILDREN sandboxes, their deaths and
 * restarts. What is of programs alone is in programs.c.
 *
 * What tos-kernel must hear is read off the children's table, never queued: a row stays until
 * its news has been sent, and while the table is full nothing more is read from tos-kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/ipc.h"
#include "tosd/tosd.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 10000
#define ALIVE_MS       30000 /* alive so long: the next back-off starts small again */
#define STOP_MS        10000
#define IN_FLIGHT_MAX  8
#define LAUNCH_MS      15000
#define BATCH          64 /* messages read from one socket before the others get their turn */

enum child_state {
	CHILD_FREE,
	CHILD_QUEUED,    /* asked for */
	CHILD_LAUNCHING, /* the launcher has it */
	CHILD_STARTED,   /* runs; SPAWNED is to be sent */
	CHILD_RUNNING,
	CHILD_FAILED, /* FAILED is to be sent */
	CHILD_DEAD,   /* DIED is to be sent */
	CHILD_KEPT,   /* a program from before this kernel: KEPT is to be sent */
};

struct child {
	enum child_state state;
	bool kill_wanted, killed, died_early;
	bool orphan; /* of a kernel that is dead: nobody hears of it, and it is only awaited */
	uint32_t next; /* in the queue, or of the free rows */
	uint64_t slot;
	uint32_t kind, ext, cpu_s, privileges;
	uint64_t address_bytes;
	struct program_row *program; /* of its kind, else NULL */
	enum launcher_kind by;       /* who makes it */
	pid_t pid;
	int pidfd, fd;
	int library; /* of an installed extension, until it is launched; else -1 */
	int rc;
	struct tosd_died died;
	char label[TOSD_NAME_BYTES];
	char text[TOSD_TEXT_BYTES];
};

#define NIL UINT32_MAX

/* tos-kernel's phases, as bits for its table. */
enum phase {
	PHASE_DOWN = 1, /* no tos-kernel */
	PHASE_UP = 2,
	PHASE_STOPPING = 4, /* TOSD_STOP was sent */
	PHASE_ENDING = 8,   /* there will be no other: its children are being ended */
};

enum watch {
	WATCH_SIGNAL = TOSD_CHILDREN,
	WATCH_KERNEL,
	WATCH_KERNEL_PID,
	WATCH_LAUNCHER, /* and, behind each, its process */
	WATCH_END = WATCH_LAUNCHER + 2 * LAUNCHERS,
	WATCH_CHECK_PID = WATCH_END,
	WATCH_ACTION, /* so many of them */
};

struct peer {
	int fd, pidfd;
	pid_t pid;
	int64_t since_ms, next_ms; /* started; when to start again */
	int64_t backoff_ms;
	uint32_t events;
};

/* A launcher and what waits for it. That of programs is started when the first one is asked for. */
struct maker {
	struct peer peer;
	bool wanted;
	uint32_t n_in_flight, queue_head, queue_tail;
	int64_t deadline_ms;
};

static struct super {
	struct tosd *t;
	int epoll, signals;
	enum phase phase;
	struct peer kernel;
	struct maker maker[LAUNCHERS];
	struct child child[TOSD_CHILDREN];
	uint32_t n_children, n_kept; /* of the former, programs that outlive the kernel */
	uint32_t n_orphans;          /* of the former; no sandbox is made while there are any */
	uint32_t free_head;
	uint32_t unsent; /* rows whose news is to be sent */
	int64_t stop_ms; /* when to stop asking and kill; 0: not stopping */
	bool stopping, ready, config_broken;
	uint32_t next_vm_uid;
} super;

void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (len < 2 || len >= sizeof(a.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(a.sun_path, path, len);
	if (path[0] == '@')
		a.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&a,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	mem_close(fd);
}

static void watch(int fd, uint32_t id, uint32_t events)
{
	struct epoll_event ev = { events, { .u64 = id } };

	must(epoll_ctl(super.epoll, EPOLL_CTL_ADD, fd, &ev) == 0);
}

static void watch_change(struct peer *p, uint32_t id, uint32_t events)
{
	struct epoll_event ev = { events, { .u64 = id } };

	if (p->fd < 0 || p->events == events)
		return;
	must(epoll_ctl(super.epoll, EPOLL_CTL_MOD, p->fd, &ev) == 0);
	p->events = events;
}

static int pidfd_of(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static int pidfd_signal(int pidfd, int sig)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

/* ---- the table ---- */

static struct maker *maker_of(const struct child *c)
{
	return &super.maker[c->by];
}

/* It goes on without the kernel that asked for it. One that is to end does not: no kernel would be told
 * of it, and its row would never be free. */
static bool child_stays(const struct child *c)
{
	return c->program && c->program->stays && !c->kill_wanted && !super.stopping;
}

static struct child *child_find(uint64_t slot)
{
	for (uint32_t i = 0; i < TOSD_CHILDREN; i++)
		if (super.child[i].state != CHILD_FREE && !super.child[i].orphan &&
			super.child[i].slot == slot)
			return &super.child[i];
	return NULL;
}

static struct child *child_take(void)
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

static void child_drop(struct child *c)
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
static void child_news(struct child *c, enum child_state state)
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

static void child_failed(struct child *c, int rc, const char *text)
{
	c->rc = rc;
	snprintf(c->text, sizeof(c->text), "%s", text);
	child_news(c, CHILD_FAILED);
}

static void child_kill(struct child *c)
{
	c->kill_wanted = true;
	if (c->pidfd >= 0 && !c->died_early && c->state != CHILD_DEAD) {
		c->killed = true;
		pidfd_signal(c->pidfd, SIGKILL);
	}
}

/* ---- to tos-kernel ---- */

static int tell_started(struct child *c, struct errmsg *em)
{
	struct tosd_spawned m = { .head = { TOSD_MSG_VERSION, TOSD_SPAWNED, sizeof(m) },
		.slot = c->slot,
		.pid = c->pid };
	int fds[4] = { c->fd, c->pidfd };
	int rc;

	if (c->program) {
		m.head.type = TOSD_PROGRAM_SPAWNED;
		memcpy(fds, c->program->fd, sizeof(c->program->fd));
		fds[3] = c->pidfd;
	}
	rc = ipc_send(super.kernel.fd, &m, sizeof(m), fds, c->program ? 4 : 2, em);
	if (rc < 0)
		return rc;
	if (c->program && !c->program->stays)
		program_close(c->program);
	if (!c->program)
		mem_close(c->fd);
	c->fd = -1;
	c->state = CHILD_RUNNING;
	super.unsent--;
	if (c->died_early)
		child_news(c, CHILD_DEAD);
	return 0;
}

/* To a kernel that has come after the one that asked for it. */
static int tell_kept(struct child *c, struct errmsg *em)
{
	struct tosd_kept m = { .head = { TOSD_MSG_VERSION, TOSD_PROGRAM_KEPT, sizeof(m) },
		.slot = c->slot,
		.pid = c->pid,
		.n_cookie = c->program->n_cookie };
	int fds[4], rc;

	memcpy(m.cookie, c->program->cookie, sizeof(m.cookie));
	memcpy(fds, c->program->fd, sizeof(c->program->fd));
	if (fds[0] < 0)
		fds[0] = super.t->null_fd;
	fds[3] = c->pidfd;
	rc = ipc_send(super.kernel.fd, &m, sizeof(m), fds, 4, em);
	if (rc < 0)
		return rc;
	c->state = CHILD_RUNNING;
	super.unsent--;
	if (c->died_early)
		child_news(c, CHILD_DEAD);
	return 0;
}

static int tell_failed(struct child *c, struct errmsg *em)
{
	struct tosd_failed m = { .head = { TOSD_MSG_VERSION, TOSD_FAILED, sizeof(m) },
		.slot = c->slot,
		.rc = c->rc };
	int rc;

	memcpy(m.text, c->text, sizeof(m.text));
	rc = ipc_send(super.kernel.fd, &m, sizeof(m), NULL, 0, em);
	if (rc == 0) {
		super.unsent--;
		child_drop(c);
	}
	return rc;
}

static int tell_died(struct child *c, struct errmsg *em)
{
	int rc = ipc_send(super.kernel.fd, &c->died, sizeof(c->died), NULL, 0, em);

	if (rc == 0) {
		super.unsent--;
		child_drop(c);
	}
	return rc;
}

static void kernel_end(const char *why, int rc, const struct errmsg *em)
{
	log_error(why, KV_ERR(rc, em));
	pidfd_signal(
		super.kernel.pidfd, SIGKILL); /* its death is then handled like any other */
}

static void tell_kernel(void)
{
	struct errmsg em = { "" };
	int rc = 0;

	for (uint32_t i = 0; i < TOSD_CHILDREN && super.unsent > 0 && rc == 0; i++) {
		struct child *c = &super.child[i];

		if (super.kernel.fd < 0)
			return;
		if (c->state == CHILD_STARTED)
			rc = tell_started(c, &em);
		if (rc == 0 && c->state == CHILD_KEPT)
			rc = tell_kept(c, &em);
		if (rc == 0 && c->state == CHILD_FAILED)
			rc = tell_failed(c, &em);
		if (rc == 0 && c->state == CHILD_DEAD)
			rc = tell_died(c, &em);
	}
	if (rc == 0 && super.kernel.fd >= 0)
		rc = reload_tell(super.kernel.fd, &em);
	if (rc == 0 && super.kernel.fd >= 0)
		rc = action_tell(super.kernel.fd, &em);
	if (rc < 0 && rc != ERR_AGAIN && rc != ERR_CLOSED)
		kernel_end("cannot speak to tos-kernel", rc, &em);
}

/* ---- launching ---- */

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
static void launch_next(struct maker *m)
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
	watch(c->pidfd, r->index, EPOLLIN);
	child_news(c, CHILD_STARTED);
	if (c->kill_wanted)
		child_kill(c);
	return 0;
}

static const struct ipc_rule launcher_rules[] = {
	{ LAUNCH_REPLY, PHASE_DOWN | PHASE_UP | PHASE_STOPPING | PHASE_ENDING,
		sizeof(struct launch_reply), IPC_ANY_FDS, on_launched },
};

/* ---- from tos-kernel ---- */

/* What the kernel brings runs in a sandbox like all others, and gets no privilege that the
 * configuration does not name. */
static bool may_install(struct child *c)
{
	struct errmsg em = { "" };
	int rc = library_check(c->library, &em);

	if (rc == 0 && (c->privileges & ~super.t->installed_privileges))
		rc = err_set(&em, ERR_DENIED,
			"the configuration does not grant it these privileges");
	if (rc < 0)
		child_failed(c, rc, err_show(rc, &em));
	return rc == 0;
}

static void queue(struct child *c)
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

static int on_spawn_program(void *arg, const void *msg, int *fds, size_t n_fds)
{
	const struct tosd_spawn_program *m = msg;
	struct child *c;

	(void)arg;
	(void)n_fds;
	if (!program_valid(m) || child_find(m->slot)) {
		mem_close(fds[0]);
		return ERR_MALFORMED;
	}
	c = child_take();
	must(c); /* nothing is read while the table is full */
	c->state = CHILD_QUEUED;
	c->slot = m->slot;
	c->kind = TOSD_PROGRAM;
	c->by = m->network ? LAUNCHER_NETWORKED : LAUNCHER_PROGRAMS;
	c->cpu_s = m->cpu_s;
	memcpy(c->label, m->label, sizeof(c->label));
	c->program = program_take(m, fds[0]);
	if (!c->program)
		child_failed(c, ERR_FULL, "too many programs run on this host");
	else if (strcmp(super.t->host.level, "full") != 0)
		child_failed(c, ERR_SANDBOX,
			"this host lacks layers of the sandbox without which no program runs; tos "
			"doctor names them");
	else
		queue(c);
	return 0;
}

static int on_spawn(void *arg, const void *msg, int *fds, size_t n_fds)
{
	const struct tosd_spawn *m = msg;
	struct child *c;
	bool own = m->kind == TOSD_EXT && m->ext >= TOSD_EXT_MAX;

	(void)arg;
	if ((m->kind != TOSD_VM && m->kind != TOSD_EXT) || child_find(m->slot) ||
		(m->kind == TOSD_EXT && !own && m->ext >= super.t->config.n_ext) ||
		(own && m->ext >= TOSD_EXT_MAX + TOSD_EXT_INSTALLED) ||
		n_fds != (own ? 1u : 0u) || !memchr(m->label, 0, sizeof(m->label))) {
		for (size_t i = 0; i < n_fds; i++)
			mem_close(fds[i]);
		return ERR_MALFORMED;
	}
	c = child_take();
	must(c); /* nothing is read while the table is full */
	c->state = CHILD_QUEUED;
	c->slot = m->slot;
	c->kind = m->kind;
	c->ext = m->ext;
	c->cpu_s = m->cpu_s;
	c->address_bytes = m->address_bytes;
	memcpy(c->label, m->label, sizeof(c->label));
	if (own) {
		c->library = fds[0];
		c->privileges = m->privileges;
	}
	if (own && !may_install(c))
		return 0;
	queue(c);
	return 0;
}

static int on_signal(void *arg, const void *msg, int *fds, size_t n_fds)
{
	const struct tosd_signal *m = msg;
	struct child *c = child_find(m->slot);

	(void)arg;
	(void)fds;
	(void)n_fds;
	if ((m->what < TOSD_KILL || m->what > TOSD_THAW) && !program_signal(m->what) &&
		m->what != TOSD_PROGRAM_INPUT_ENDS)
		return ERR_MALFORMED;
	if (!c)
		return 0; /* its death is on the way */
	if (m->what == TOSD_PROGRAM_INPUT_ENDS) {
		program_input_ends(c->program);
		return 0;
	}
	if (program_signal(m->what)) {
		if (c->program && c->pidfd >= 0 && !c->died_early && c->state != CHILD_DEAD)
			pidfd_signal(c->pidfd, program_signal(m->what));
		return 0;
	}
	if (m->what == TOSD_KILL)
		child_kill(c);
	else if (c->pidfd >= 0 && !c->died_early && c->state != CHILD_DEAD)
		pidfd_signal(c->pidfd, m->what == TOSD_FREEZE ? SIGSTOP : SIGCONT);
	return 0;
}

static int on_ready(void *arg, const void *msg, int *fds, size_t n_fds)
{
	(void)arg;
	(void)msg;
	(void)fds;
	(void)n_fds;
	log_notice("ready", KV_INT("pid", super.kernel.pid),
		KV_STR("sandbox", super.t->host.level));
	super.ready = true;
	notify("READY=1");
	return 0;
}

static void reload(void)
{
	int pidfd = reload_begin(super.t);

	if (pidfd >= 0)
		watch(pidfd, WATCH_CHECK_PID, EPOLLIN);
}

static int on_reload(void *arg, const void *msg, int *fds, size_t n_fds)
{
	(void)arg;
	(void)msg;
	(void)fds;
	(void)n_fds;
	reload();
	return 0;
}

static int on_action(void *arg, const void *msg, int *fds, size_t n_fds)
{
	(void)arg;
	(void)fds;
	(void)n_fds;
	return action_ask(super.t, msg);
}

static const struct ipc_rule kernel_rules[] = {
	{ TOSD_SPAWN, PHASE_UP | PHASE_STOPPING, sizeof(struct tosd_spawn), IPC_ANY_FDS,
		on_spawn },
	{ TOSD_SPAWN_PROGRAM, PHASE_UP | PHASE_STOPPING, sizeof(struct tosd_spawn_program), 1,
		on_spawn_program },
	{ TOSD_SIGNAL, PHASE_UP | PHASE_STOPPING, sizeof(struct tosd_signal), 0, on_signal },
	{ TOSD_KERNEL_READY, PHASE_UP | PHASE_STOPPING, sizeof(struct tosd_simple), 0,
		on_ready },
	{ TOSD_RELOAD, PHASE_UP | PHASE_STOPPING, sizeof(struct tosd_simple), 0, on_reload },
	{ TOSD_ACTION_ASK, PHASE_UP | PHASE_STOPPING, sizeof(struct tosd_action_ask), 0,
		on_action },
};

/* Read a batch. Returns 0, or why the peer must be ended; ERR_CLOSED when it has closed. */
static int read_peer(struct peer *p, const struct ipc_rule *rules, size_t n_rules, bool bounded,
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

/* ---- deaths ---- */

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

static void on_child_death(struct child *c)
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

static void peer_close(struct peer *p)
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

static void peer_reaped(struct peer *p)
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
static void end_children(void)
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
	for (uint32_t i = 0; i < LAUNCHERS; i++)
		super.maker[i].queue_head = super.maker[i].queue_tail = NIL;
	kept_count();
	super.unsent = 0;
}

static void on_kernel_death(void)
{
	int status;

	if (waitpid(super.kernel.pid, &status, WNOHANG) != super.kernel.pid)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == TOSD_EXIT_BROKEN)
		super.config_broken = true;
	peer_reaped(&super.kernel);
	if (!super.stopping)
		super.stop_ms = 0; /* it was meant for this one */
	if (super.stopping && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		log_notice("tos-kernel has stopped");
	else if (WIFEXITED(status))
		log_error("tos-kernel ended", KV_INT("status", WEXITSTATUS(status)));
	else
		log_error("tos-kernel was killed", KV_INT("signal", WTERMSIG(status)));
	/* The next one reads its store while these are being ended; its sandboxes wait. */
	super.phase = super.stopping || super.config_broken ? PHASE_ENDING : PHASE_DOWN;
	super.ready = false;
	reload_forget();
	action_forget();
	end_children();
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

static void on_launcher_death(struct maker *m)
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

/* ---- starting ---- */

static void peer_started(struct peer *p, pid_t pid, int fd, uint32_t id)
{
	p->pid = pid;
	p->fd = fd;
	p->pidfd = pidfd_of(pid);
	must(p->pidfd >= 0);
	p->since_ms = clock_ms();
	p->events = EPOLLIN;
	watch(fd, id, EPOLLIN);
	watch(p->pidfd, id + 1, EPOLLIN);
}

static void start_later(struct peer *p)
{
	if (p->backoff_ms)
		backoff_more(p);
	else
		p->backoff_ms = BACKOFF_MIN_MS;
	p->next_ms = clock_ms() + p->backoff_ms;
}

/* What has outlived the last kernel is the next one's to hear of. */
static void kept_offer(void)
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

static void start_peers(void)
{
	struct errmsg em = { "" };
	int64_t now = clock_ms();
	int fd, pid;

	for (uint32_t i = 0; i < LAUNCHERS; i++) {
		struct maker *m = &super.maker[i];

		if (!m->wanted || m->peer.pid != 0 || m->peer.next_ms > now || super.stopping)
			continue;
		pid = launcher_start(super.t, (enum launcher_kind)i, &fd, &em);
		if (pid > 0) {
			peer_started(&m->peer, pid, fd, WATCH_LAUNCHER + 2 * i);
		} else {
			log_error("cannot start the launcher", KV_ERR(pid, &em));
			start_later(&m->peer);
		}
	}
	if (super.phase == PHASE_DOWN && super.kernel.next_ms <= now && !super.stopping) {
		pid = kernel_start(super.t, &fd, &em);
		if (pid > 0) {
			peer_started(&super.kernel, pid, fd, WATCH_KERNEL);
			super.phase = PHASE_UP;
			kept_offer();
			log_info("tos-kernel started", KV_INT("pid", pid));
		} else {
			log_error("cannot start tos-kernel", KV_ERR(pid, &em));
			start_later(&super.kernel);
		}
	}
}

/* ---- stopping ---- */

static void stop(int sig)
{
	struct tosd_simple m = { .head = { TOSD_MSG_VERSION, TOSD_STOP, sizeof(m) } };

	if (super.stopping) {
		if (super.kernel.pidfd >= 0)
			pidfd_signal(super.kernel.pidfd, SIGKILL); /* asked twice: at once */
		return;
	}
	log_notice("stopping", KV_STR("signal", sig == SIGINT ? "INT" : "TERM"));
	notify("STOPPING=1");
	super.stopping = true;
	super.stop_ms = clock_ms() + STOP_MS;
	if (super.phase != PHASE_UP)
		return;
	super.phase = PHASE_STOPPING;
	/* A tos-kernel that reads nothing is killed when its time is up. */
	ipc_send(super.kernel.fd, &m, sizeof(m), NULL, 0, NULL);
}

static void on_signals(void)
{
	struct signalfd_siginfo si;

	while (read(super.signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
			stop((int)si.ssi_signo);
		else if (si.ssi_signo == SIGHUP)
			reload();
	}
}

/* ---- the loop ---- */

static void on_kernel_readable(void)
{
	struct errmsg em = { "" };
	int rc = read_peer(
		&super.kernel, kernel_rules, ARRAY_LEN(kernel_rules), true, NULL, &em);

	if (rc == ERR_CLOSED)
		peer_close(&super.kernel); /* alive without its socket it is of no use */
	if (rc < 0 && super.kernel.pidfd >= 0) {
		if (rc != ERR_CLOSED)
			kernel_end("tos-kernel broke the protocol", rc, &em);
		else
			super.stop_ms = super.stop_ms ? super.stop_ms : clock_ms() + 1000;
	}
}

static void on_launcher_readable(struct maker *m)
{
	struct errmsg em = { "" };
	int rc = read_peer(&m->peer, launcher_rules, ARRAY_LEN(launcher_rules), false, m, &em);

	if (rc == 0)
		return;
	if (rc != ERR_CLOSED)
		log_error("launcher broke the protocol", KV_ERR(rc, &em));
	peer_close(&m->peer);
	if (m->peer.pidfd >= 0)
		pidfd_signal(m->peer.pidfd, SIGKILL);
}

static void dispatch(uint32_t id)
{
	bool launcher = id >= WATCH_LAUNCHER && id < WATCH_END;
	struct maker *m = &super.maker[launcher ? (id - WATCH_LAUNCHER) / 2 : 0];
	bool process = (id - WATCH_LAUNCHER) % 2;

	if (id == WATCH_SIGNAL)
		on_signals();
	else if (id == WATCH_KERNEL && super.kernel.fd >= 0)
		on_kernel_readable();
	else if (id == WATCH_KERNEL_PID && super.kernel.pid > 0)
		on_kernel_death();
	else if (launcher && !process && m->peer.fd >= 0)
		on_launcher_readable(m);
	else if (launcher && process && m->peer.pid > 0)
		on_launcher_death(m);
	else if (id == WATCH_CHECK_PID && reload_ended(super.t, super.epoll))
		reload();
	else if (id >= WATCH_ACTION && id < WATCH_ACTION + ACTION_WATCHES)
		action_event(id);
	else if (id < TOSD_CHILDREN && super.child[id].pidfd >= 0)
		on_child_death(&super.child[id]);
}

static void deadlines(void)
{
	int64_t now = clock_ms();

	if (super.stop_ms && now >= super.stop_ms) {
		super.stop_ms = 0;
		if (super.kernel.pidfd >= 0) {
			log_warning("tos-kernel does not end: killing it");
			pidfd_signal(super.kernel.pidfd, SIGKILL);
		}
	}
	for (uint32_t i = 0; i < LAUNCHERS; i++) {
		struct maker *m = &super.maker[i];

		if (m->n_in_flight == 0 || now < m->deadline_ms || m->peer.pidfd < 0)
			continue;
		log_error("launcher hangs: killing it");
		pidfd_signal(m->peer.pidfd, SIGKILL);
		m->deadline_ms = now + LAUNCH_MS;
	}
	reload_expire(now);
	action_turn(super.t, super.stopping || super.config_broken);
	if (super.phase == PHASE_ENDING && super.n_children == super.n_kept)
		super.phase = PHASE_DOWN;
}

static int timeout_ms(void)
{
	int64_t at = INT64_MAX, left;

	if (super.stop_ms)
		at = super.stop_ms;
	for (uint32_t i = 0; i < LAUNCHERS; i++) {
		const struct maker *m = &super.maker[i];

		if (m->n_in_flight > 0 && m->deadline_ms < at)
			at = m->deadline_ms;
		if (m->wanted && m->peer.pid == 0 && !super.stopping && m->peer.next_ms < at)
			at = m->peer.next_ms;
	}
	if (super.phase == PHASE_DOWN && !super.stopping && super.kernel.next_ms < at)
		at = super.kernel.next_ms;
	if (reload_deadline() < at)
		at = reload_deadline();
	if (action_deadline() < at)
		at = action_deadline();
	if (at == INT64_MAX)
		return -1;
	left = at - clock_ms();
	return left < 0 ? 0 : (int)left;
}

/* When there is nothing more to do; the exit status is tosd's. */
static bool finished(int *status)
{
	if (super.phase != PHASE_DOWN || super.n_orphans > 0 || action_runs())
		return false;
	if (super.config_broken) {
		log_error("tos-kernel cannot work with its configuration or store; see above");
		*status = 1;
		return true;
	}
	*status = 0;
	return super.stopping;
}

static bool is_socket(uint64_t id)
{
	return id == WATCH_KERNEL ||
	       (id >= WATCH_LAUNCHER && id < WATCH_END && (id - WATCH_LAUNCHER) % 2 == 0);
}

static void turn(void)
{
	struct epoll_event ev[64];
	int n = epoll_wait(super.epoll, ev, ARRAY_LEN(ev), timeout_ms());

	/* Messages before deaths: what a dead process said is still heard. Only the kernel's: a
	 * child's pidfd is its row, and rows change hands only below. */
	for (int i = 0; i < n; i++)
		if (is_socket(ev[i].data.u64))
			dispatch((uint32_t)ev[i].data.u64);
	for (int i = 0; i < n; i++)
		if (!is_socket(ev[i].data.u64))
			dispatch((uint32_t)ev[i].data.u64);
	deadlines();
	start_peers();
	for (uint32_t i = 0; i < LAUNCHERS; i++)
		launch_next(&super.maker[i]);
	tell_kernel();
	watch_change(&super.kernel, WATCH_KERNEL,
		(super.free_head != NIL ? EPOLLIN : 0u) |
			(super.unsent || reload_due() || action_due() ? EPOLLOUT : 0u));
}

static void init(struct tosd *t)
{
	sigset_t set;

	super.t = t;
	super.phase = PHASE_DOWN;
	super.kernel = (struct peer){ .fd = -1, .pidfd = -1 };
	for (uint32_t i = 0; i < LAUNCHERS; i++)
		super.maker[i] = (struct maker){ .peer = super.kernel,
			.wanted = i == LAUNCHER_SANDBOXES,
			.queue_head = NIL,
			.queue_tail = NIL };
	super.free_head = NIL;
	for (uint32_t i = TOSD_CHILDREN; i-- > 0;) {
		super.child[i].pidfd = super.child[i].fd = super.child[i].library = -1;
		super.child[i].next = super.free_head;
		super.free_head = i;
	}
	super.epoll = epoll_create1(EPOLL_CLOEXEC);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	super.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	must(super.epoll >= 0 && super.signals >= 0);
	watch(super.signals, WATCH_SIGNAL, EPOLLIN);
	action_init(super.epoll, WATCH_ACTION);
}

int supervise(struct tosd *t)
{
	int status = 0;

	init(t);
	start_peers();
	while (!finished(&status))
		turn();
	for (uint32_t i = 0; i < LAUNCHERS; i++) {
		struct peer *p = &super.maker[i].peer;

		if (p->pid > 0) {
			pidfd_signal(p->pidfd, SIGKILL);
			waitpid(p->pid, NULL, 0);
		}
	}
	return status;
}
