/*
 * The kernel's children: the conversation with tosd, which makes and ends them. A child is known
 * by its slot, a number that is never used twice in one boot. What is said to a tos-vm is in
 * vms.c.
 */
#include "kernel/services/actions.h"
#include "kernel/services/extender.h"
#include "kernel/services/programs.h"
#include "kernel/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "ipc/ipc.h"
#include "kernel/carrier/vms.h"

#define TOSD_QUEUE_MAX 8192
/* Beside programs, which have a bound of their own. */
#define CHILDREN_MAX (TOSD_CHILDREN - 2 * TOSD_PROGRAMS)

struct child {
	enum tosd_kind kind;
	uint64_t slot;
	struct vm *vm;
	char ext[EXT_KEY_BYTES];
	struct program *program;
	int pidfd;
};

struct queued_msg {
	struct list node;
	int fd; /* ours; -1: none */
	size_t n;
	uint8_t bytes[];
};

/* ---- tosd */

static void tosd_poll_update(struct kernel *k);

static int packet(struct kernel *k, const void *msg, size_t n, int fd, struct errmsg *em)
{
	return ipc_send(k->tosd_fd, msg, n, &fd, fd >= 0, em);
}

int tosd_send(struct kernel *k, const void *msg, size_t n, int fd)
{
	struct errmsg em = { "" };
	struct queued_msg *q;
	int rc = ERR_AGAIN;

	if (list_empty(&k->tosd_queue))
		rc = packet(k, msg, n, fd, &em);
	if (rc != ERR_AGAIN)
		return rc;
	if (k->tosd_queued >= TOSD_QUEUE_MAX)
		return ERR_FULL;
	q = mem_zero(sizeof(*q) + n);
	q->n = n;
	q->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	memcpy(q->bytes, msg, n);
	list_add(&k->tosd_queue, &q->node);
	k->tosd_queued++;
	tosd_poll_update(k);
	return 0;
}

static void tosd_flush(struct kernel *k)
{
	while (!list_empty(&k->tosd_queue)) {
		struct queued_msg *q = LIST_ITEM(k->tosd_queue.next, struct queued_msg, node);

		if (packet(k, q->bytes, q->n, q->fd, NULL) == ERR_AGAIN)
			return;
		list_del(&q->node);
		mem_close(q->fd);
		k->tosd_queued--;
		free(q);
	}
	tosd_poll_update(k);
}

static void head_set(struct tosd_head *h, enum tosd_type type, size_t n)
{
	*h = (struct tosd_head){ TOSD_MSG_VERSION, (uint16_t)type, (uint32_t)n };
}

void tosd_ready(struct kernel *k)
{
	struct tosd_simple m = { .slot = 0 };

	head_set(&m.head, TOSD_KERNEL_READY, sizeof(m));
	tosd_send(k, &m, sizeof(m), -1);
}

static int child_signal(struct kernel *k, uint64_t slot, enum tosd_signal_what what)
{
	struct tosd_signal m = { .slot = slot, .what = what };

	head_set(&m.head, TOSD_SIGNAL, sizeof(m));
	return tosd_send(k, &m, sizeof(m), -1);
}

static struct child *child_find(struct kernel *k, uint64_t slot)
{
	return map_find(k->children, &slot, sizeof(slot));
}

static struct child *child_new(struct kernel *k, enum tosd_kind kind)
{
	struct child *c = mem_new(struct child);

	c->kind = kind;
	c->slot = ++k->next_slot;
	c->pidfd = -1;
	map_put(k->children, &c->slot, sizeof(c->slot), c);
	return c;
}

static void child_forget(struct kernel *k, struct child *c)
{
	map_del(k->children, &c->slot, sizeof(c->slot));
	mem_close(c->pidfd);
	free(c);
}

static int spawn(struct kernel *k, const struct child *c, struct tosd_spawn *m,
	const char *label, int fd)
{
	if (map_size(k->children) > CHILDREN_MAX)
		return ERR_LIMIT;
	m->slot = c->slot;
	m->kind = c->kind;
	head_set(&m->head, TOSD_SPAWN, sizeof(*m));
	snprintf(m->label, sizeof(m->label), "%s", label);
	return tosd_send(k, m, sizeof(*m), fd);
}

/* ---- isolated extensions */

/* Its number in the configuration's table, or what tosd needs to make an installed one. */
static void ext_process(const struct kernel *k, const char *key, struct extender_process *p)
{
	*p = (struct extender_process){ .fd = -1 };
	snprintf(p->label, sizeof(p->label), "%.63s", key);
	if (extender_process(k, key, p) == 0)
		return;
	for (size_t i = 0; i < k->config.n_extensions; i++) {
		if (!k->config.extensions[i].isolated)
			continue;
		if (strcmp(k->config.extensions[i].name, key) == 0)
			break;
		p->index++;
	}
}

int child_spawn_ext(struct kernel *k, const char *key)
{
	struct child *c = child_new(k, TOSD_EXT);
	struct extender_process p;
	int rc;

	ext_process(k, key, &p);
	snprintf(c->ext, sizeof(c->ext), "%s", key);
	rc = spawn(k, c,
		&(struct tosd_spawn){ .ext = p.index,
			.privileges = p.privileges,
			.address_bytes = p.address_bytes },
		p.label, p.fd);
	if (rc < 0)
		child_forget(k, c);
	return rc;
}

void child_kill_ext(struct kernel *k, const char *key)
{
	struct child *c;
	size_t it = 0;

	while ((c = map_next(k->children, &it, NULL, NULL)))
		if (c->kind == TOSD_EXT && strcmp(c->ext, key) == 0)
			child_signal(k, c->slot, TOSD_KILL);
}

/* ---- tos-vm processes */

int child_spawn_vm(struct kernel *k, struct vm *v, uint64_t address_bytes, const char *label)
{
	struct child *c = child_new(k, TOSD_VM);
	int rc;

	v->slot = c->slot;
	c->vm = v;
	/* No limit of CPU time: it is shared and lives long, and each carrier's is counted. */
	rc = spawn(k, c, &(struct tosd_spawn){ .address_bytes = address_bytes }, label, -1);
	if (rc < 0)
		child_forget(k, c);
	return rc;
}

void child_kill_vm(struct kernel *k, const struct vm *v)
{
	child_signal(k, v->slot, TOSD_KILL);
}

void child_forget_vm(struct kernel *k, const struct vm *v)
{
	struct child *c = child_find(k, v->slot);

	if (c)
		child_forget(k, c);
}

/* ---- programs */

static struct child *child_of_program(struct kernel *k, struct program *p)
{
	struct child *c = mem_new(struct child);

	c->kind = TOSD_PROGRAM;
	c->slot = p->slot;
	c->program = p;
	c->pidfd = -1;
	map_put(k->children, &c->slot, sizeof(c->slot), c);
	return c;
}

int child_spawn_program(
	struct kernel *k, struct program *p, struct tosd_spawn_program *m, int fd)
{
	struct child *c = child_of_program(k, p);
	int rc;

	m->slot = p->slot;
	head_set(&m->head, TOSD_SPAWN_PROGRAM, sizeof(*m));
	rc = tosd_send(k, m, sizeof(*m), fd);
	mem_close(fd);
	if (rc < 0)
		child_forget(k, c);
	return rc;
}

void child_signal_program(struct kernel *k, const struct program *p, int sig)
{
	child_signal(k, p->slot,
		sig == SIGKILL ? TOSD_KILL
			       : (enum tosd_signal_what)(TOSD_PROGRAM_SIGNAL + sig));
}

void child_input_ends(struct kernel *k, const struct program *p)
{
	child_signal(k, p->slot, TOSD_PROGRAM_INPUT_ENDS);
}

static void close_each(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		mem_close(fds[i]);
}

static int on_program_spawned(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;
	const struct tosd_spawned *m = msg;
	struct child *c = child_find(k, m->slot);

	if (!c || c->pidfd >= 0 || c->kind != TOSD_PROGRAM) {
		close_each(fds, n_fds);
		return 0;
	}
	c->pidfd = fds[3];
	program_spawned(c->program, fds, m->pid);
	return 0;
}

static int on_program_kept(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;
	const struct tosd_kept *m = msg;
	struct program *p;

	if (child_find(k, m->slot)) {
		close_each(fds, n_fds);
		return 0;
	}
	p = program_kept(k, m, fds);
	if (p)
		child_of_program(k, p)->pidfd = fds[3];
	else
		mem_close(fds[3]);
	if (!p) {
		log_error("a program that outlived the kernel is nobody's; it is ended");
		child_signal(k, m->slot, TOSD_KILL);
	}
	return 0;
}

/* ---- messages from tosd */

static int on_layers(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;

	(void)fds;
	(void)n_fds;
	memcpy(&k->layers, msg, sizeof(k->layers));
	k->layers.level[sizeof(k->layers.level) - 1] = 0;
	if (k->layers.n > TOSD_LAYERS_MAX)
		k->layers.n = TOSD_LAYERS_MAX;
	if (strcmp(k->layers.level, "full") != 0)
		log_warning(
			"the sandbox is not complete on this host; tos doctor says what is missing",
			KV_STR("level", k->layers.level));
	return 0;
}

static int on_spawned(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;
	const struct tosd_spawned *m = msg;
	struct child *c = child_find(k, m->slot);
	struct errmsg em = { "" };
	int rc;

	(void)n_fds;
	if (!c || c->pidfd >= 0 || c->kind == TOSD_PROGRAM) {
		mem_close(fds[0]);
		mem_close(fds[1]);
		return 0;
	}
	c->pidfd = fds[1];
	if (c->kind == TOSD_EXT) {
		rc = ext_attach(k->exts, c->ext, fds[0], m->pid, &em);
		if (rc < 0)
			log_warning("an extension's process could not be taken over",
				KV_STR("extension", c->ext), KV_ERR(rc, &em));
		return 0;
	}
	vm_spawned(c->vm, fds[0], m->pid);
	return 0;
}

/* That process of an extension has ended; another may have been made meanwhile, which goes on. */
static void ext_ended(struct kernel *k, struct child *c, const char *why)
{
	char key[EXT_KEY_BYTES];
	const struct child *other;
	bool newer = false;
	size_t it = 0;

	while ((other = map_next(k->children, &it, NULL, NULL)))
		newer |= other->kind == TOSD_EXT && other->slot > c->slot &&
			 strcmp(other->ext, c->ext) == 0;
	snprintf(key, sizeof(key), "%s", c->ext);
	child_forget(k, c);
	if (!k->exts_gone && !newer)
		ext_died(k->exts, key, why);
}

static int on_failed(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;
	const struct tosd_failed *m = msg;
	struct child *c = child_find(k, m->slot);
	char text[TOSD_TEXT_BYTES];

	(void)fds;
	(void)n_fds;
	if (!c)
		return 0;
	snprintf(text, sizeof(text), "%.*s", (int)sizeof(m->text) - 1, m->text);
	if (c->kind == TOSD_EXT) {
		ext_ended(k, c, text);
		return 0;
	}
	if (c->kind == TOSD_PROGRAM) {
		struct program *p = c->program;

		child_forget(k, c);
		program_failed(p, m->rc, text);
		return 0;
	}
	vm_failed(c->vm, m->rc, text);
	return 0;
}

static int on_died(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct kernel *k = arg;
	const struct tosd_died *m = msg;
	struct child *c = child_find(k, m->slot);

	(void)fds;
	(void)n_fds;
	if (!c)
		return 0;
	if (c->kind == TOSD_EXT) {
		char why[96];

		snprintf(why, sizeof(why), "%s %d",
			m->cause == TOSD_EXITED ? "exit status" : "signal", m->status);
		ext_ended(k, c, why);
		return 0;
	}
	if (c->kind == TOSD_PROGRAM) {
		struct program *p = c->program;

		child_forget(k, c);
		program_died(p, m);
		return 0;
	}
	vm_died(c->vm, m);
	return 0;
}

static int on_stop(void *arg, const void *msg, int *fds, size_t n_fds)
{
	(void)msg;
	(void)fds;
	(void)n_fds;
	kernel_stop(arg);
	return 0;
}

static int on_checked(void *arg, const void *msg, int *fds, size_t n_fds)
{
	const struct tosd_reloaded *m = msg;
	char text[TOSD_TEXT_BYTES];

	(void)fds;
	(void)n_fds;
	snprintf(text, sizeof(text), "%.*s", (int)sizeof(m->text) - 1, m->text);
	reload_checked(arg, m->rc, text);
	return 0;
}

static int on_action(void *arg, const void *msg, int *fds, size_t n_fds)
{
	(void)fds;
	(void)n_fds;
	action_ended(arg, msg);
	return 0;
}

int tosd_reload(struct kernel *k)
{
	struct tosd_simple m = { .slot = 0 };

	head_set(&m.head, TOSD_RELOAD, sizeof(m));
	return tosd_send(k, &m, sizeof(m), -1);
}

static const struct ipc_rule tosd_rules[] = {
	/* type          when  bytes                         fds handler */
	{ TOSD_LAYERS, 1, sizeof(struct tosd_layers), 0, on_layers },
	{ TOSD_SPAWNED, 1, sizeof(struct tosd_spawned), 2, on_spawned },
	{ TOSD_FAILED, 1, sizeof(struct tosd_failed), 0, on_failed },
	{ TOSD_DIED, 1, sizeof(struct tosd_died), 0, on_died },
	{ TOSD_PROGRAM_SPAWNED, 1, sizeof(struct tosd_spawned), 4, on_program_spawned },
	{ TOSD_PROGRAM_KEPT, 1, sizeof(struct tosd_kept), 4, on_program_kept },
	{ TOSD_STOP, 1, sizeof(struct tosd_simple), 0, on_stop },
	{ TOSD_RELOADED, 1, sizeof(struct tosd_reloaded), 0, on_checked },
	{ TOSD_ACTION_ENDED, 1, sizeof(struct tosd_action_ended), 0, on_action },
};

static void on_tosd(uv_poll_t *poll, int status, int events)
{
	struct kernel *k = poll->data;
	union {
		struct tosd_layers align;
		uint8_t bytes[16384];
	} msg;

	if (status == 0 && (events & UV_WRITABLE))
		tosd_flush(k);
	for (int i = 0; i < 64 && status == 0; i++) {
		int fds[IPC_FDS_MAX];
		size_t n, n_fds;
		struct errmsg em = { "" };
		int rc = ipc_recv(
			k->tosd_fd, &msg, sizeof(msg), &n, fds, ARRAY_LEN(fds), &n_fds, &em);

		if (rc == ERR_AGAIN)
			return;
		if (rc == 0)
			rc = ipc_dispatch(tosd_rules, ARRAY_LEN(tosd_rules), 1, k, &msg, n, fds,
				n_fds, &em);
		if (rc < 0) {
			/* Without tosd there is nobody to make or end processes: stop at once.
			 * The store has all that counts. */
			log_error("tosd is gone", KV_ERR(rc, &em));
			_exit(1);
		}
	}
}

static void tosd_poll_update(struct kernel *k)
{
	int events = UV_READABLE | (list_empty(&k->tosd_queue) ? 0 : UV_WRITABLE);

	uv_poll_start(&k->tosd_poll, events, on_tosd);
}

int tosd_begin(struct kernel *k, struct errmsg *em)
{
	list_init(&k->tosd_queue);
	k->children = map_new();
	if (uv_poll_init(k->loop, &k->tosd_poll, k->tosd_fd) != 0)
		return err_set(em, ERR_IO, "cannot watch tosd's socket");
	k->tosd_poll.data = k;
	tosd_poll_update(k);
	return 0;
}
