/*
 * What tos-kernel and tosd say to each other: its requests, each checked against a table before
 * anything is done for it, and the news of its children, read off their rows.
 */
#include "tosd/supervise.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

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

void tell_kernel(void)
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
		maker_queue(c);
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
	maker_queue(c);
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
		if (c->program && child_runs(c))
			pidfd_signal(c->pidfd, program_signal(m->what));
		return 0;
	}
	if (m->what == TOSD_KILL)
		child_kill(c);
	else if (child_runs(c))
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

static int on_reload(void *arg, const void *msg, int *fds, size_t n_fds)
{
	(void)arg;
	(void)msg;
	(void)fds;
	(void)n_fds;
	check_again();
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

void kernel_readable(void)
{
	struct errmsg em = { "" };
	int rc = peer_read(
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
