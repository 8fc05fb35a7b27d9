/*
 * The order in which a child gives everything up: see sandbox.h and doc/architecture.md,
 * "Sandbox".
 *
 * Runs between clone and exec in a single-threaded copy of tosd or its launcher. No memory is
 * allocated; a failure goes to the status pipe as text.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE              65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

#define INSIDE_ID 1000u
#define TURN_NS   100000u
#define VM_NICE   10

_Noreturn static void give_up(int status_fd, const char *what, int error)
{
	char text[160];
	int n = snprintf(text, sizeof(text), "%s: %s", what, strerror(error));

	if (write(status_fd, text, (size_t)n) < 0) {
		/* nobody listens any more */
	}
	_exit(127);
}

int sandbox_drop_bounding(uint64_t keep)
{
	for (unsigned long cap = 0; cap < 64; cap++) {
		if (keep >> cap & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return errno == EINVAL ? 0 : -errno;
	}
	return 0;
}

int sandbox_drop_caps(uint64_t keep)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct now[2], want[2];

	if (syscall(SYS_capget, &head, now) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		uint32_t mask = (uint32_t)(keep >> (32 * i));

		want[i].permitted = now[i].permitted & mask;
		want[i].effective = want[i].permitted;
		want[i].inheritable = 0;
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &head, want) < 0 ? -errno : 0;
}

int sandbox_no_new_privs(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

int sandbox_mdwe(void)
{
	return prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) < 0 ? -errno : 0;
}

uint64_t sandbox_clone_flags(const struct sandbox_plan *p)
{
	const struct sandbox_profile *row = sandbox_profile(p->kind);
	const struct sandbox_host *h = p->host;
	uint64_t flags = 0;

	if (!row->namespaces)
		return 0;
	if (h->userns)
		flags |= CLONE_NEWUSER;
	if (h->pidns)
		flags |= CLONE_NEWPID;
	if (h->mountns)
		flags |= CLONE_NEWNS;
	if (p->kind == SANDBOX_PROGRAM)
		return flags | (h->ipcns ? CLONE_NEWIPC : 0) | (h->utsns ? CLONE_NEWUTS : 0);
	/* A root without CAP_SYS_ADMIN: the launcher could not leave these itself and keep the
	 * right to map each child to a uid of its own. */
	if (h->root && !h->root_mounts && h->userns)
		flags |= (h->netns ? CLONE_NEWNET : 0) | (h->ipcns ? CLONE_NEWIPC : 0) |
			 (h->utsns ? CLONE_NEWUTS : 0);
	return flags;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	if (n < 0) {
		int rc = -errno;

		mem_close(fd);
		return rc;
	}
	mem_close(fd);
	return 0;
}

int sandbox_map_ids(pid_t pid, uid_t uid, gid_t gid, struct errmsg *em)
{
	char path[64], text[64];
	int rc;

	snprintf(path, sizeof(path), "/proc/%d/setgroups", (int)pid);
	write_file(path, "deny"); /* refused where it is denied already */
	snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)pid);
	snprintf(text, sizeof(text), "%u %u 1", INSIDE_ID, uid);
	rc = write_file(path, text);
	if (rc < 0)
		return err_set(em, ERR_SANDBOX, "cannot write %s: %s", path, strerror(-rc));
	snprintf(path, sizeof(path), "/proc/%d/gid_map", (int)pid);
	snprintf(text, sizeof(text), "%u %u 1", INSIDE_ID, gid);
	rc = write_file(path, text);
	if (rc < 0)
		return err_set(em, ERR_SANDBOX, "cannot write %s: %s", path, strerror(-rc));
	return 0;
}

int sandbox_map_self(const char *file, const char *text)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/%s", file);
	return write_file(path, text);
}

static void wait_gate(const struct sandbox_plan *p)
{
	char byte;
	ssize_t n;

	if (p->gate_fd < 0)
		return;
	do
		n = read(p->gate_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		_exit(127); /* our maker has died: getppid() can't tell inside a pid namespace
			     */
}

static int set_ids(uid_t uid)
{
	if (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	return 0;
}

static int set_limit(int what, uint64_t value)
{
	struct rlimit now, want;

	if (value == SANDBOX_UNLIMITED)
		return 0;
#ifdef TOS_VALGRIND
	if (what == RLIMIT_NOFILE) /* it keeps some for itself, and refuses this one */
		return 0;
#endif
	if (prlimit(0, (__rlimit_resource_t)what, NULL, &now) < 0)
		return -errno;
	want.rlim_cur = want.rlim_max = value < now.rlim_max ? value : now.rlim_max;
	return prlimit(0, (__rlimit_resource_t)what, &want, NULL) < 0 ? -errno : 0;
}

static uint64_t or_plan(uint64_t row, uint64_t plan)
{
	if (row != SANDBOX_FROM_PLAN)
		return row;
	return plan ? plan : SANDBOX_UNLIMITED;
}

static int set_limits(const struct sandbox_plan *p)
{
	const struct sandbox_profile *row = sandbox_profile(p->kind);
	/* Without a uid or user namespace of its own the number counts all of that user's
	 * processes. */
	bool alone = p->host->userns || p->uid != (uid_t)-1;
	const struct {
		int what;
		uint64_t value;
	} limits[] = { { RLIMIT_AS, or_plan(row->as, p->address_bytes) },
		{ RLIMIT_DATA, or_plan(row->data, p->data_bytes) },
		/* A program's is set behind its process 1, which lives as long as it does. */
		{ RLIMIT_CPU, p->kind == SANDBOX_PROGRAM ? SANDBOX_UNLIMITED
							 : or_plan(row->cpu, p->cpu_s) },
		{ RLIMIT_FSIZE,
			p->directory ? p->file_bytes : or_plan(row->fsize, p->file_bytes) },
		{ RLIMIT_NOFILE, or_plan(row->nofile, p->files) }, { RLIMIT_CORE, row->core },
		{ RLIMIT_MEMLOCK, row->memlock },
		{ RLIMIT_NPROC, alone || row->nproc == 1 ? or_plan(row->nproc, p->processes)
							 : SANDBOX_UNLIMITED },
		{ RLIMIT_MSGQUEUE, row->msgqueue }, { RLIMIT_SIGPENDING, row->sigpending } };
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(limits) && rc == 0; i++)
		rc = set_limit(limits[i].what, limits[i].value);
	return rc;
}

int sandbox_close_from(int first)
{
	struct rlimit r;

	if (syscall(SYS_close_range, (unsigned)first, ~0u, 0) == 0)
		return 0;
	/* An old container runtime: one by one. */
	if ((errno != ENOSYS && errno != EPERM) || prlimit(0, RLIMIT_NOFILE, NULL, &r) < 0)
		return -errno;
	for (int fd = first; (rlim_t)fd < r.rlim_max && fd < 1 << 20; fd++)
		close(fd);
	return 0;
}

/* Put each descriptor where the program expects it and close all others. They are first lifted
 * out of the way, since a place may be taken by the next one to be moved. */
static int place_fds(const struct sandbox_plan *p, int *program_fd)
{
	int from[SANDBOX_FD_STATUS + 1] = { p->null_fd, p->out_fd, p->log_fd, p->socket_fd,
		p->library_fd, *program_fd, p->status_fd };

	for (int i = 0; i <= SANDBOX_FD_STATUS; i++) {
		if (from[i] < 0)
			continue;
		from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 64);
		if (from[i] < 0)
			return -errno;
	}
	for (int i = 0; i <= SANDBOX_FD_STATUS; i++) {
		if (from[i] < 0)
			close(i);
		else if (dup3(from[i], i, i >= SANDBOX_FD_PROGRAM ? O_CLOEXEC : 0) < 0)
			return -errno;
	}
	/* SIGIO, should the program want it, goes to itself; it can't choose that later. */
	if (p->socket_fd >= 0)
		fcntl(SANDBOX_FD_SOCKET, F_SETOWN, getpid());
	*program_fd = SANDBOX_FD_PROGRAM;
	return sandbox_close_from(SANDBOX_FD_STATUS + 1);
}

static void reset_signals(void)
{
	sigset_t none;

	for (int s = 1; s < 32; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void raise_oom_score(int score)
{
	char text[16];

	if (score == 0)
		return;
	snprintf(text, sizeof(text), "%d", score);
	write_file("/proc/self/oom_score_adj", text); /* best effort: it only orders victims */
}

/* The bounding set takes CAP_SETPCAP to empty: root has it, and so has the first process of a
 * user namespace. */
static bool may_drop(const struct sandbox_plan *p, bool userns)
{
	return userns || (p->host->root && p->host->caps);
}

const char *sandbox_directory(const struct sandbox_plan *p)
{
	return p->host->mountns ? SANDBOX_DATA : p->directory;
}

/* Whoever made the directory did not know this uid. */
static void check_directory(const struct sandbox_plan *p)
{
	char what[120];

	if (!p->directory ||
		access(sandbox_directory(p), X_OK | R_OK | (p->read_only ? 0 : W_OK)) == 0)
		return;
	snprintf(what, sizeof(what), "uid %u may not %s the directory that it was granted",
		p->uid == (uid_t)-1 ? geteuid() : p->uid, p->read_only ? "read" : "write in");
	give_up(p->status_fd, what, errno);
}

/* Own mount view and own uid, in the order that keeps the right to do the next step. */
static int enter_root(const struct sandbox_plan *p, const char **what)
{
	const struct sandbox_profile *row = sandbox_profile(p->kind);
	bool userns = row->namespaces && p->host->userns;
	bool fixed =
		p->bind_from[0] || p->bind_from[1]; /* tos-kernel, by a root that may mount */
	int rc = 0, directory = -1;

	/* While we are still who may go there. */
	*what = "cannot open the directory that it was granted";
	if (p->directory && (directory = open(p->directory,
				     O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
		return -errno;
	*what = "cannot take the user namespace's uid";
	if (userns && (rc = set_ids(INSIDE_ID)) < 0)
		return rc;
	*what = "cannot make a mount namespace";
	if (fixed && unshare(CLONE_NEWNS) < 0)
		return -errno;
	*what = "cannot build the root directory";
	if (p->kind == SANDBOX_PROGRAM)
		rc = sandbox_program_mounts(p);
	else if (fixed || (row->namespaces && p->host->mountns))
		rc = sandbox_mounts(p, directory);
	if (directory >= 0)
		mem_close(directory);
	if (rc < 0)
		return rc;
	*what = "cannot empty the capability bounding set";
	if (may_drop(p, userns) && (rc = sandbox_drop_bounding(row->keep_caps)) < 0)
		return rc;
	*what = "cannot take a uid of its own";
	if (!userns && p->uid != (uid_t)-1) {
		if (setgroups(0, NULL) < 0)
			return -errno;
		rc = set_ids(p->uid);
	}
	return rc;
}

/* What the others wait for is not kept from the processor by what computes for the whole of a turn,
 * and gets no more of it for that. Since Linux 6.12; earlier ones do nothing with it. */
static void short_turns(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime_ns, deadline_ns, period_ns;
	} a = { .size = 0 };

	if (syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0) < 0 || a.policy != SCHED_OTHER)
		return;
	a.runtime_ns = TURN_NS;
	syscall(SYS_sched_setattr, 0, &a, 0);
}

/* What computes gives way to the kernel that others wait for, also where that has just worked for
 * long: turns are by what each has had, and a tos-vm's counts for nine times as much. Towards the rest of
 * the machine it is the same where that is in other control groups. */
static void give_way(void)
{
	int rc = nice(VM_NICE);

	(void)rc; /* it always may */
}

static int confine(const struct sandbox_plan *p, const char **what)
{
	const struct sandbox_profile *row = sandbox_profile(p->kind);
	int rc;

	if (p->kind == SANDBOX_KERNEL)
		short_turns();
	if (p->kind == SANDBOX_VM)
		give_way();
	*what = "cannot set limits";
	if ((rc = set_limits(p)) < 0)
		return rc;
	*what = "cannot drop capabilities";
	if ((rc = sandbox_drop_caps(row->keep_caps)) < 0)
		return rc;
	*what = "cannot die with the parent";
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) <
		0) /* again: the change of uid cleared it */
		return -errno;
	*what = "cannot set no_new_privs";
	if ((rc = sandbox_no_new_privs()) < 0)
		return rc;
	*what = "cannot refuse writable code";
	if (row->mdwe && p->host->mdwe && (rc = sandbox_mdwe()) < 0)
		return rc;
	*what = "cannot enter Landlock";
	if (row->landlock && p->host->landlock_abi > 0 && (rc = sandbox_landlock(p)) < 0)
		return rc;
	*what = "cannot load the seccomp filter";
	return p->filter ? sandbox_filter_load(p->filter) : 0;
}

_Noreturn void sandbox_run(const struct sandbox_plan *p)
{
	const char *what = "";
	int program_fd = p->program_fd, rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	wait_gate(p);
	reset_signals();
	raise_oom_score(sandbox_profile(p->kind)->oom_score_adj);
	rc = enter_root(p, &what);
	if (rc < 0)
		give_up(p->status_fd, what, -rc);
	check_directory(p);
	if (p->path && p->kind != SANDBOX_PROGRAM) {
		program_fd = open(p->path, O_PATH | O_CLOEXEC);
		if (program_fd < 0)
			give_up(p->status_fd, p->path, errno);
	}
	rc = place_fds(p, &program_fd);
	if (rc < 0)
		_exit(127);
	rc = confine(p, &what);
	if (rc < 0)
		give_up(SANDBOX_FD_STATUS, what, -rc);
	if (p->kind == SANDBOX_PROGRAM)
		sandbox_init(p);
#ifdef TOS_VALGRIND
	/* It looks for the path that the file had before the root was another. */
	execve("/proc/self/fd/5", p->argv, p->envp);
#endif
	syscall(SYS_execveat, SANDBOX_FD_PROGRAM, "", p->argv, p->envp, AT_EMPTY_PATH);
	give_up(SANDBOX_FD_STATUS, "cannot execute the program", errno);
}
