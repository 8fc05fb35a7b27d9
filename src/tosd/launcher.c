/*
 * The launchers: small children of tosd that make sandboxes, one request at a time.
 *
 * It unshares net, ipc and uts once and stays in those empty sets, so its clones inherit them
 * and hold no rights over them. CLONE_PARENT makes the clones tosd's own children: tosd alone
 * reaps and signals them, and they die with tosd (the parent-death signal is that of tosd's
 * only thread).
 *
 * That of programs is a second one of the same kind; a third one stays in the host's network, for those
 * that were granted it. It lives in a mount namespace which holds what
 * programs see and nothing else, with a uid that is theirs where root started us, so a copy of it
 * is most of a program's sandbox.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "ipc/ipc.h"
#include "tosd/tosd.h"

struct launcher {
	enum launcher_kind kind;
	struct tosd *t;
	int fd;
	bool verbose; /* a tos-vm may write to our stderr */
};

static char *const no_env[] = {
#ifdef TOS_SANITIZE
	"ASAN_OPTIONS=detect_leaks=0",
#endif
	NULL
};

/* Fork with namespaces. The old call, since container runtimes answer clone3 with ENOSYS; the
 * child's exit signal is ours to tosd (SIGCHLD). */
static long clone_child(uint64_t flags, int *pidfd)
{
	return syscall(SYS_clone, flags | CLONE_PARENT | CLONE_PIDFD, NULL, pidfd, NULL, NULL);
}

static int open_gate(const struct sandbox_plan *p, pid_t pid, int gate, struct errmsg *em)
{
	uid_t uid = p->uid == (uid_t)-1 ? geteuid() : p->uid;
	gid_t gid = p->uid == (uid_t)-1 ? getegid() : (gid_t)p->uid;
	int rc = 0;

	if (sandbox_clone_flags(p) & CLONE_NEWUSER)
		rc = sandbox_map_ids(pid, uid, gid, em);
	if (rc == 0 && write(gate, "", 1) != 1)
		rc = err_errno(em, "cannot let the child go on");
	return rc;
}

/* Make the child and wait until it has executed its program. */
static int make(struct sandbox_plan *p, int *pidfd, pid_t *out, struct errmsg *em)
{
	int gate[2], report[2], rc;
	long pid;

	if (pipe2(gate, O_CLOEXEC) < 0)
		return err_errno(em, "cannot make a pipe");
	if (pipe2(report, O_CLOEXEC) < 0) {
		mem_close(gate[0]);
		mem_close(gate[1]);
		return err_errno(em, "cannot make a pipe");
	}
	p->gate_fd = gate[0];
	p->status_fd = report[1];
	pid = clone_child(sandbox_clone_flags(p), pidfd);
	if (pid == 0) {
		/* Its own copy of the gate's other end would keep it waiting for ever. */
		close(gate[1]);
		sandbox_run(p);
	}
	rc = pid < 0 ? err_errno(em, "cannot clone") : 0;
	mem_close(gate[0]);
	mem_close(report[1]);
	if (rc == 0) {
		*out = (pid_t)pid;
		rc = open_gate(p, (pid_t)pid, gate[1], em);
	}
	mem_close(gate[1]);
	if (rc == 0)
		rc = exec_wait(report[0], em);
	mem_close(report[0]);
	return rc;
}

static int fill_plan(struct launcher *l, const struct launch_request *r, int library,
	struct sandbox_plan *p, char **argv)
{
	struct tosd *t = l->t;
	bool vm = r->kind == TOSD_VM;

	*p = (struct sandbox_plan){ .kind = vm ? SANDBOX_VM : SANDBOX_EXT,
		.host = &t->host,
		.privileges = r->privileges,
		.dynamic = vm ? t->vm.dynamic : t->ext.dynamic,
		.uid = r->uid < 0 ? (uid_t)-1 : (uid_t)r->uid,
		.address_bytes = r->address_bytes,
		.cpu_s = r->cpu_s,
		.directory = r->directory[0] ? r->directory : NULL,
		.read_only = r->read_only,
		.file_bytes = r->file_bytes,
		.null_fd = t->null_fd,
		.out_fd = vm && !l->verbose ? t->null_fd : STDERR_FILENO,
		.log_fd = vm && !l->verbose ? t->null_fd : STDERR_FILENO,
		.library_fd = library,
		.program_fd = vm ? t->vm.fd : t->ext.fd,
		.hide = t->hide,
		.argv = argv,
		.envp = no_env };
	if (t->host.seccomp)
		p->filter = p->directory ? &t->filter_directory : &t->filter[p->kind];
	argv[0] = vm ? "tos-vm" : "tos-ext";
	if (!vm) {
		bool copied = t->host.mountns && !(r->privileges & SANDBOX_READ_FS);

		argv[1] = (char *)(uintptr_t)r->name;
		argv[2] = copied ? "/ext.so" : "/proc/self/fd/4";
		if (p->directory)
			argv[3] = (char *)(uintptr_t)sandbox_directory(p);
	}
	return 0;
}

static void answer(struct launcher *l, struct launch_reply *reply, const int *fds, size_t n_fds)
{
	/* Our socket blocks; without tosd there is nobody to serve. */
	if (ipc_send(l->fd, reply, sizeof(*reply), fds, n_fds, NULL) < 0)
		_exit(1);
}

static int on_request(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct launcher *l = arg;
	const struct launch_request *r = msg;
	struct launch_reply reply = { .head = { TOSD_MSG_VERSION, LAUNCH_REPLY, sizeof(reply) },
		.index = r->index };
	char *argv[5] = { NULL };
	struct sandbox_plan plan;
	struct errmsg em = { "" };
	int pair[2], pidfd = -1, give[2];
	pid_t pid = 0;

	fill_plan(l, r, n_fds > 0 ? fds[0] : -1, &plan, argv);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		reply.rc = err_errno(&em, "cannot make a socket");
		pair[0] = -1;
	} else {
		plan.socket_fd = pair[1];
		reply.rc = make(&plan, &pidfd, &pid, &em);
		mem_close(pair[1]);
	}
	reply.pid = (int32_t)pid;
	give[0] = pair[0];
	give[1] = pidfd;
	snprintf(reply.text, sizeof(reply.text), "%.255s", em.text);
	answer(l, &reply, give, reply.rc == 0 ? 2 : 0);
	if (pair[0] >= 0)
		mem_close(pair[0]);
	if (pidfd >= 0)
		mem_close(pidfd);
	for (size_t i = 0; i < n_fds; i++)
		mem_close(fds[i]);
	return 0;
}

/* ---- programs */

/* Sorted so that a start writes as little as it can: arguments and environment are only pointed
 * at. */
static char *args[TOSD_ARGS_MAX + 1], *env[TOSD_ARGS_MAX + 1];

static char *split(char *text, uint32_t n, char **out)
{
	for (uint32_t i = 0; i < n; i++) {
		out[i] = text;
		text += strlen(text) + 1;
	}
	out[n] = NULL;
	return text;
}

static void program_plan(
	struct launcher *l, const struct launch_program *m, int program, struct sandbox_plan *p)
{
	const struct tosd_spawn_program *a = &m->program;
	char *text = (char *)(uintptr_t)a->text;

	*p = (struct sandbox_plan){ .kind = SANDBOX_PROGRAM,
		.host = &l->t->host,
		/* Where there are user namespaces our own uid is the programs'. */
		.uid = l->t->host.userns || m->request.uid < 0 ? (uid_t)-1
							       : (uid_t)m->request.uid,
		.address_bytes = a->address_bytes,
		.cpu_s = a->cpu_s,
		.data_bytes = a->data_bytes,
		.file_bytes = a->file_bytes,
		.scratch_bytes = a->scratch_bytes,
		.network = a->network,
		.processes = a->processes + 1, /* process 1 is ours */
		.files = a->files,
		.socket_fd = -1,
		.library_fd = -1,
		.program_fd = program,
		.path = a->path[0] ? a->path : NULL,
		.argv = args,
		.envp = env };
	if (l->t->host.seccomp)
		p->filter = &l->t->filter[SANDBOX_PROGRAM];
	text = split(text, a->n_args, args);
	split(text, a->n_env, env);
}

/* 0 once the program runs; else what process 1 says. */
static int program_wait(int report, struct errmsg *em)
{
	char text[200];
	int rc = exec_wait_byte(report, text, em);
	ssize_t n;

	if (rc < 0 || !text[0])
		return rc;
	n = read(report, text + 1, sizeof(text) - 2);
	text[n > 0 ? 1 + n : 1] = 0;
	return err_set(em, ERR_SANDBOX, "%s", text);
}

static void close_all(int (*pipes)[2], size_t n, int side)
{
	for (size_t i = 0; i < n; i++)
		if (pipes[i][side] >= 0) {
			mem_close(pipes[i][side]);
			pipes[i][side] = -1;
		}
}

/* pipes: gate, stdin, stdout, stderr, report. */
static int program_make(
	struct sandbox_plan *p, int (*pipes)[2], int *pidfd, pid_t *out, struct errmsg *em)
{
	long pid;
	int rc;

	p->gate_fd = pipes[0][0];
	p->null_fd = pipes[1][0];
	p->out_fd = pipes[2][1];
	p->log_fd = pipes[3][1];
	p->status_fd = pipes[4][1];
	pid = clone_child(sandbox_clone_flags(p), pidfd);
	if (pid == 0) {
		close(pipes[0][1]);
		sandbox_run(p);
	}
	if (pid < 0)
		return err_errno(em, "cannot clone");
	*out = (pid_t)pid;
	mem_close(pipes[4][1]);
	pipes[4][1] = -1;
	rc = open_gate(p, (pid_t)pid, pipes[0][1], em);
	return rc ? rc : program_wait(pipes[4][0], em);
}

static int on_program(void *arg, const void *msg, int *fds, size_t n_fds)
{
	struct launcher *l = arg;
	const struct launch_program *m = msg;
	struct launch_reply reply = { .head = { TOSD_MSG_VERSION, LAUNCH_REPLY, sizeof(reply) },
		.index = m->request.index };
	int pipes[5][2], pidfd = -1, give[PROGRAM_FDS + 1];
	struct sandbox_plan plan;
	struct errmsg em = { "" };
	pid_t pid = 0;

	(void)n_fds;
	memset(pipes, -1, sizeof(pipes));
	program_plan(l, m, fds[0], &plan);
	for (size_t i = 0; i < ARRAY_LEN(pipes) && reply.rc == 0; i++)
		if (pipe2(pipes[i], O_CLOEXEC) < 0)
			reply.rc = err_errno(&em, "cannot make a pipe");
	if (reply.rc == 0)
		reply.rc = program_make(&plan, pipes, &pidfd, &pid, &em);
	reply.pid = (int32_t)pid;
	give[0] = pipes[1][1];
	give[1] = pipes[2][0];
	give[2] = pipes[3][0];
	give[3] = pipes[4][0];
	give[4] = pidfd;
	snprintf(reply.text, sizeof(reply.text), "%.255s", em.text);
	answer(l, &reply, give, reply.rc == 0 ? ARRAY_LEN(give) : 0);
	close_all(pipes, ARRAY_LEN(pipes), 0);
	close_all(pipes, ARRAY_LEN(pipes), 1);
	if (pidfd >= 0)
		mem_close(pidfd);
	mem_close(fds[0]);
	return 0;
}

static const struct ipc_rule rules[] = {
	{ LAUNCH_PROGRAM, 1 << LAUNCHER_PROGRAMS | 1 << LAUNCHER_NETWORKED,
		sizeof(struct launch_program), 1, on_program },
	{ LAUNCH_REQUEST, 1 << LAUNCHER_SANDBOXES, sizeof(struct launch_request), IPC_ANY_FDS,
		on_request },
};

static int map_self(uid_t uid, gid_t gid);

/* Our own uid becomes that of all programs here, which have user namespaces between them. */
static int take_uid(const struct tosd *t)
{
	uid_t uid = program_uid(t);

	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
		setresuid(uid, uid, uid) < 0)
		return -errno;
	/* Lost with the uid; our own maps could not be written without. */
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* The launcher of programs: its view becomes theirs. */
static int unshare_programs(const struct tosd *t, bool networked)
{
	const struct sandbox_host *h = &t->host;
	int flags = CLONE_NEWNS | (h->userns ? CLONE_NEWUSER : 0) |
		    (h->netns && !networked ? CLONE_NEWNET : 0) |
		    (h->ipcns ? CLONE_NEWIPC : 0) | (h->utsns ? CLONE_NEWUTS : 0);
	int rc = h->own_uid && h->userns ? take_uid(t) : 0;
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (rc < 0)
		return rc;
	if (unshare(flags) < 0)
		return -errno;
	if (h->userns && (rc = map_self(uid, gid)) < 0)
		return rc;
	return sandbox_skeleton();
}

/* Into empty namespaces, as far as the host lets us. Root needs no user namespace for that. */
static int unshare_once(const struct sandbox_host *h)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int flags = (h->netns ? CLONE_NEWNET : 0) | (h->ipcns ? CLONE_NEWIPC : 0) |
		    (h->utsns ? CLONE_NEWUTS : 0);

	if (!flags || (h->root && !h->root_mounts))
		return 0; /* each child gets its own, if any: sandbox_clone_flags() */
	if (unshare(flags | (h->root ? 0 : CLONE_NEWUSER)) < 0)
		return -errno;
	return h->root ? 0 : map_self(uid, gid);
}

static int map_self(uid_t uid, gid_t gid)
{
	char text[64];

	snprintf(text, sizeof(text), "%u %u 1", uid, uid);
	if (sandbox_map_self("setgroups", "deny") < 0 || sandbox_map_self("uid_map", text) < 0)
		return -errno;
	snprintf(text, sizeof(text), "%u %u 1", gid, gid);
	return sandbox_map_self("gid_map", text);
}

/* Keep what serving needs, and nothing else of tosd's. */
static int keep_fds(struct launcher *l)
{
	int *kept[] = { &l->fd, &l->t->null_fd, &l->t->vm.fd, &l->t->ext.fd };
	int at = 3;

	for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
		if (*kept[i] < 0)
			continue;
		*kept[i] = fcntl(*kept[i], F_DUPFD_CLOEXEC, 128);
		if (*kept[i] < 0)
			return -errno;
	}
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		if (*kept[i] >= 0) {
			if (dup3(*kept[i], at, O_CLOEXEC) < 0)
				return -errno;
			*kept[i] = at++;
		}
	return sandbox_close_from(at);
}

/* Process 1 of each sandbox is a copy of us, whose command line the program reads. */
static void forget_arguments(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		memset(argv[i], 0, strlen(argv[i]));
}

static int settle(struct launcher *l, pid_t parent)
{
	bool programs = l->kind != LAUNCHER_SANDBOXES;
	enum sandbox_kind kind = programs ? SANDBOX_MAKER : SANDBOX_LAUNCHER;
	const struct sandbox_profile *row = sandbox_profile(kind);
	struct tosd *t = l->t;
	sigset_t none;
	int rc;

	prctl(PR_SET_NAME, programs ? "tosd-programs" : "tosd-launcher", 0, 0, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent)
		return -ESRCH;
	/* The terminal's Ctrl-C is tosd's to answer. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if ((rc = keep_fds(l)) < 0)
		return rc;
	if ((rc = programs ? unshare_programs(t, l->kind == LAUNCHER_NETWORKED)
			   : unshare_once(&t->host)) < 0)
		return rc;
	if (programs)
		forget_arguments(t->argv);
	/* Again: a change of uid clears it. */
	if (programs && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -errno;
	if (t->host.root && t->host.caps)
		sandbox_drop_bounding(row->keep_caps);
	if (t->host.root && (rc = sandbox_drop_caps(row->keep_caps)) < 0)
		return rc;
	if ((rc = sandbox_no_new_privs()) < 0)
		return rc;
	return t->host.seccomp ? sandbox_filter_load(&t->filter[kind]) : 0;
}

_Noreturn static void serve(struct launcher *l)
{
	for (;;) {
		static union {
			struct tosd_head head;
			struct launch_request request;
			struct launch_program program;
		} r;
		struct errmsg em;
		int fds[1];
		size_t n, n_fds;
		int rc = ipc_recv(l->fd, &r, sizeof(r), &n, fds, ARRAY_LEN(fds), &n_fds, &em);

		if (rc == 0)
			rc = ipc_dispatch(rules, ARRAY_LEN(rules), 1u << l->kind, l, &r, n, fds,
				n_fds, &em);
		if (rc == ERR_CLOSED)
			_exit(0);
		if (rc < 0) {
			log_error("launcher ends", KV_ERR(rc, &em));
			_exit(1);
		}
	}
}

int launcher_start(
	struct tosd *t, enum launcher_kind kind, int *fd, int *pidfd, struct errmsg *em)
{
	int pair[2];
	pid_t parent = getpid(), pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(em, "cannot make a socket");
	pid = pidfd_fork(pidfd);
	if (pid == 0) {
		struct launcher l = { kind, t, pair[1],
			strcmp(t->config.log_level, "debug") == 0 };
		int rc = settle(&l, parent);

		if (rc < 0) {
			log_error("launcher cannot be set up", KV_STR("reason", strerror(-rc)));
			_exit(1);
		}
		serve(&l);
	}
	mem_close(pair[1]);
	if (pid < 0) {
		mem_close(pair[0]);
		return err_errno(em, "cannot fork");
	}
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	*fd = pair[0];
	return pid;
}
