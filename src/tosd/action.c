/*
 * Named actions, run by tosd itself: what the host's administrator has listed in the configuration,
 * outside of any sandbox, with tosd's own rights. tos-kernel says which, and with what values; both are
 * checked here against the table that tosd has read, so that a tos-kernel that lies gets no more done
 * than what the table holds. No shell, no environment of ours, no descriptor but 0 to 2.
 *
 * Each runs alone among those of its name and to its end: not even the death of the kernel that asked
 * ends it (half a package is worse than one too many), only its time, or tosd's own end.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/action.h"
#include "ipc/ipc.h"
#include "tosd/tosd.h"

#define GRACE_MS    1000 /* from SIGTERM to SIGKILL */
#define WORDS_BYTES 2048
#define HEAD_BYTES                                                                             \
	((size_t)TOSD_ACTION_OUTPUT / 2) /* of a stream's beginning; the rest is of its end */
#define BLOCK_BYTES 16384
#define FILES_MAX   1024
#define UNTRUSTED   0x10000 /* on the status pipe, beside values of errno */
#define ANY_ORDER   UINT64_MAX

enum state {
	FREE,
	WAITING, /* for its turn */
	RUNNING,
	ENDED, /* tos-kernel is to be told */
};

struct row {
	enum state state;
	bool orphan, terminated;
	uint64_t order;
	int64_t began_ms;
	int64_t until_ms; /* waiting: to begin; running: until it is told to end, then killed */
	uint32_t timeout_ms;
	pid_t pid;
	int pidfd, out[2], status_fd;
	uint32_t n_words;
	char name[TOSD_NAME_BYTES], words[WORDS_BYTES];
	struct tosd_action_ended ended;
};

static struct row rows[ACTION_ROWS];
static uint64_t orders;
static int epoll_fd = -1;
static uint32_t watch_first;

void action_init(int epoll, uint32_t first_watch)
{
	epoll_fd = epoll;
	watch_first = first_watch;
}

/* ---- ends */

static void close_one(int *fd)
{
	if (*fd >= 0) {
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, *fd, NULL);
		mem_close(*fd);
	}
	*fd = -1;
}

static void ended(struct row *r, int rc, const char *text)
{
	for (size_t i = 0; i < ARRAY_LEN(r->out); i++)
		close_one(&r->out[i]);
	close_one(&r->pidfd);
	close_one(&r->status_fd);
	r->pid = 0;
	r->ended.rc = rc;
	snprintf(r->ended.text, sizeof(r->ended.text), "%s", text);
	if (rc < 0)
		log_notice("an action was not run", KV_STR("action", r->name),
			KV_STR("reason", r->ended.text));
	r->state = r->orphan ? FREE : ENDED;
}

/* ---- what it writes */

static void output_add(struct row *r, int which, const char *p, size_t n)
{
	char *keep = r->ended.output[which];
	size_t have = r->ended.n[which], room = TOSD_ACTION_OUTPUT - have;
	size_t part = n < room ? n : room, tail = TOSD_ACTION_OUTPUT - HEAD_BYTES;

	memcpy(keep + have, p, part);
	r->ended.n[which] += (uint32_t)part;
	p += part;
	n -= part;
	if (!n)
		return;
	r->ended.cut[which] += n;
	if (n > tail) {
		p += n - tail;
		n = tail;
	}
	memmove(keep + HEAD_BYTES, keep + HEAD_BYTES + n, tail - n);
	memcpy(keep + TOSD_ACTION_OUTPUT - n, p, n);
}

/* One block; true while there may be more. */
static bool output_read(struct row *r, int which)
{
	static char block[BLOCK_BYTES];
	ssize_t n = read(r->out[which], block, sizeof(block));

	if (n > 0)
		output_add(r, which, block, (size_t)n);
	else if (n == 0 || errno != EAGAIN)
		close_one(&r->out[which]);
	return n > 0;
}

/* ---- its process */

static _Noreturn void give_up(int fd, int why)
{
	if (write(fd, &why, sizeof(why)) < 0)
		_exit(126);
	_exit(127);
}

/* What anybody else may write is not run with our rights. */
static bool trusted(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 || (S_ISREG(st.st_mode) && !(st.st_mode & 022) &&
					      (st.st_uid == 0 || st.st_uid == geteuid()));
}

static _Noreturn void become(const struct tosd *t, const int fds[4], char **argv, char **envp)
{
	struct rlimit files = { FILES_MAX, FILES_MAX }, none = { 0, 0 };
	int status = STDERR_FILENO + 1;
	sigset_t nothing;

	/* All of ours lie above 2, and each is where it belongs before another takes its place. */
	if (dup2(t->null_fd, 0) < 0 || dup2(fds[0], 1) < 0 || dup2(fds[1], 2) < 0 ||
		(fds[2] != status && dup2(fds[2], status) < 0) ||
		fcntl(status, F_SETFD, FD_CLOEXEC) < 0 || sandbox_close_from(status + 1) < 0)
		_exit(126);
	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != fds[3])
		_exit(126);
	for (int s = 1; s < 32; s++)
		signal(s, SIG_DFL);
	sigemptyset(&nothing);
	sigprocmask(SIG_SETMASK, &nothing, NULL);
	umask(022);
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_CORE, &none);
	if (chdir("/") < 0)
		give_up(status, errno);
	if (!trusted(argv[0]))
		give_up(status, UNTRUSTED);
	execve(argv[0], argv, envp);
	give_up(status, errno);
}

static void watch(const struct row *r, int fd, uint32_t which)
{
	struct epoll_event ev = { EPOLLIN,
		{ .u64 = watch_first + 3 * (uint32_t)(r - rows) + which } };

	must(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0);
}

static pid_t fork_it(const struct tosd *t, struct row *r, int out, int err, int status)
{
	static char name[TOSD_NAME_BYTES + 16], kernel[TOSD_NAME_BYTES + 16];
	char *argv[TOSD_ACTION_WORDS + 1],
		*envp[] = { (char *)(uintptr_t) "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
			(char *)(uintptr_t) "LANG=C.UTF-8", (char *)(uintptr_t) "HOME=/", name,
			kernel, NULL };
	int fds[4] = { out, err, status, (int)getpid() };
	const char *word = r->words;
	pid_t pid;

	for (uint32_t i = 0; i < r->n_words; i++, word += strlen(word) + 1)
		argv[i] = (char *)(uintptr_t)word;
	argv[r->n_words] = NULL;
	snprintf(name, sizeof(name), "TOS_ACTION=%s", r->name);
	snprintf(kernel, sizeof(kernel), "TOS_KERNEL=%s", t->config.name);
	pid = pidfd_fork(&r->pidfd);
	if (pid == 0)
		become(t, fds, argv, envp);
	return pid;
}

static void start(const struct tosd *t, struct row *r)
{
	int pipes[3][2];
	size_t n = 0;

	while (n < ARRAY_LEN(pipes) && pipe2(pipes[n], O_CLOEXEC) == 0)
		n++;
	r->pid = n == ARRAY_LEN(pipes) ? fork_it(t, r, pipes[0][1], pipes[1][1], pipes[2][1])
				       : -1;
	for (size_t i = 0; i < n; i++) {
		mem_close(pipes[i][1]);
		if (r->pid < 0)
			mem_close(pipes[i][0]);
	}
	if (r->pid < 0) {
		ended(r, ERR_IO, "tosd cannot start another process");
		return;
	}
	for (size_t i = 0; i < n; i++)
		fcntl(pipes[i][0], F_SETFL, O_NONBLOCK);
	r->out[0] = pipes[0][0];
	r->out[1] = pipes[1][0];
	r->status_fd = pipes[2][0];
	watch(r, r->pidfd, 0);
	watch(r, r->out[0], 1);
	watch(r, r->out[1], 2);
	r->state = RUNNING;
	r->began_ms = clock_ms();
	r->until_ms = r->began_ms + r->timeout_ms;
	log_notice("action begun", KV_STR("action", r->name), KV_INT("pid", r->pid));
}

static void on_death(struct row *r)
{
	char text[TOSD_TEXT_BYTES];
	int status = 0, why = 0;

	if (waitpid(r->pid, &status, WNOHANG) != r->pid)
		return;
	/* What it has left running may hold the pipes: that is not waited for. */
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < 64 && r->out[i] >= 0 && output_read(r, i); k++)
			;
	r->ended.status = status;
	r->ended.ran_ms = (uint32_t)(clock_ms() - r->began_ms);
	if (read(r->status_fd, &why, sizeof(why)) == (ssize_t)sizeof(why)) {
		snprintf(text, sizeof(text), "%.160s: %s", r->words,
			why == UNTRUSTED ? "it is not a file that root alone may write"
					 : strerror(why));
		ended(r, why == ENOENT ? ERR_NOT_FOUND : ERR_DENIED, text);
		return;
	}
	log_notice("action ended", KV_STR("action", r->name),
		KV_STR("how", r->ended.timed_out  ? "timed out"
			      : WIFEXITED(status) ? "exited"
						  : "signalled"),
		KV_INT("status", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)),
		KV_INT("ran_ms", r->ended.ran_ms));
	ended(r, 0, "");
}

void action_event(uint32_t id)
{
	struct row *r = &rows[(id - watch_first) / 3];
	uint32_t which = (id - watch_first) % 3;

	if (r->state != RUNNING)
		return;
	if (which == 0)
		on_death(r);
	else if (r->out[which - 1] >= 0)
		output_read(r, (int)which - 1);
}

bool action_has(pid_t pid)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].state == RUNNING && rows[i].pid == pid)
			return true;
	return false;
}

/* ---- whose turn it is */

static bool may_begin(const struct row *r)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (rows[i].state != RUNNING)
			continue;
		n++;
		if (strcmp(rows[i].name, r->name) == 0)
			return false;
	}
	return n < ACTION_RUNNING;
}

static struct row *next_after(uint64_t order)
{
	struct row *found = NULL;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].state == WAITING && (order == ANY_ORDER || rows[i].order > order) &&
			(!found || rows[i].order < found->order))
			found = &rows[i];
	return found;
}

static void signal_all(const struct row *r, int sig)
{
	/* What has left its session is meant to stay. */
	if (kill(-r->pid, sig) < 0)
		kill(r->pid, sig);
}

static void expire(struct row *r, int64_t now)
{
	if (now < r->until_ms)
		return;
	signal_all(r, r->terminated ? SIGKILL : SIGTERM);
	if (!r->terminated)
		log_warning("an action takes too long; it is ended", KV_STR("action", r->name));
	r->ended.timed_out = true;
	r->terminated = true;
	r->until_ms = now + GRACE_MS;
}

void action_turn(const struct tosd *t, bool stopping)
{
	int64_t now = clock_ms();
	uint64_t order = ANY_ORDER;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].state == RUNNING) {
			if (stopping && !rows[i].terminated)
				rows[i].until_ms = now;
			expire(&rows[i], now);
		}
	for (struct row *r; (r = next_after(order));) {
		order = r->order;
		if (stopping)
			ended(r, ERR_CANCELLED, "the kernel is being stopped");
		else if (now >= r->until_ms)
			ended(r, ERR_TIMEOUT,
				"others before it took so long that nobody waits for it any more");
		else if (may_begin(r))
			start(t, r);
	}
}

int64_t action_deadline(void)
{
	int64_t at = INT64_MAX;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if ((rows[i].state == WAITING || rows[i].state == RUNNING) &&
			rows[i].until_ms < at)
			at = rows[i].until_ms;
	return at;
}

bool action_runs(void)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].state == RUNNING)
			return true;
	return false;
}

/* ---- tos-kernel */

/* It may ask for what is not there: the configuration may have changed. But not in a way that the
 * messages have no room for. */
static int well_formed(const struct tosd_action_ask *m)
{
	if (!memchr(m->name, 0, sizeof(m->name)) || m->n_values > TOSD_ACTION_ARGS)
		return ERR_MALFORMED;
	for (uint32_t i = 0; i < m->n_values; i++)
		if (!memchr(m->value[i], 0, sizeof(m->value[i])))
			return ERR_MALFORMED;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].state != FREE && !rows[i].orphan && rows[i].ended.slot == m->slot)
			return ERR_MALFORMED;
	return 0;
}

static struct row *row_take(const struct tosd_action_ask *m)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct row *r = &rows[i];

		if (r->state != FREE)
			continue;
		memset(r, 0, sizeof(*r));
		r->pidfd = r->out[0] = r->out[1] = r->status_fd = -1;
		r->order = ++orders;
		r->ended.head = (struct tosd_head){ TOSD_MSG_VERSION, TOSD_ACTION_ENDED,
			sizeof(r->ended) };
		r->ended.slot = m->slot;
		return r;
	}
	return NULL;
}

/* The name is the kernel's, and may be anything. */
static void refused(struct row *r, int rc, const struct errmsg *em)
{
	static struct log_rate rate;

	r->ended.rc = rc;
	snprintf(r->ended.text, sizeof(r->ended.text), "%s", em->text);
	r->state = ENDED;
	if (log_rate_ok(&rate, 1))
		log_notice("an action was refused", KV_ERR(rc, em));
}

int action_ask(const struct tosd *t, const struct tosd_action_ask *m)
{
	const struct tosd_action *a;
	struct errmsg em = { "" };
	struct row *r;
	int rc = well_formed(m);

	if (rc < 0)
		return rc;
	r = row_take(m);
	if (!r)
		return ERR_MALFORMED; /* more than may be asked */
	a = action_find(t->config.action, t->config.n_actions, m->name);
	if (!a)
		rc = err_set(&em, ERR_NOT_FOUND, "this host's tosd knows no such action");
	else
		rc = action_expand(
			a, m->n_values, m->value, r->words, sizeof(r->words), &r->n_words, &em);
	if (rc < 0) {
		refused(r, rc, &em);
		return 0;
	}
	snprintf(r->name, sizeof(r->name), "%s", a->name);
	r->timeout_ms = a->timeout_ms;
	r->until_ms = clock_ms() + m->within_ms;
	r->state = WAITING;
	return 0;
}

bool action_due(void)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].state == ENDED)
			return true;
	return false;
}

int action_tell(int fd, struct errmsg *em)
{
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows) && rc == 0; i++) {
		struct row *r = &rows[i];

		if (r->state != ENDED)
			continue;
		rc = ipc_send(fd, &r->ended, sizeof(r->ended), NULL, 0, em);
		if (rc == 0)
			r->state = FREE;
	}
	return rc;
}

void action_forget(void)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct row *r = &rows[i];

		if (r->state == RUNNING)
			r->orphan = true;
		else
			r->state = FREE;
	}
}
