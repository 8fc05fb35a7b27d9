/*
 * Which layers this host offers, found by trying each in a throw-away child: the lists that the
 * system keeps (securityfs, /proc/sys) are often absent or mislead in containers. See
 * sandbox.h.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

/* Returns 0 or an errno, which becomes the exit status. */
typedef int probe_fn(const struct sandbox_plan *p);

/* Run fn in a child made with these namespace flags. 0, or a negative errno. */
static int try_child(const struct sandbox_plan *p, uint64_t flags, probe_fn *fn)
{
	uid_t uid = p->uid == (uid_t)-1 ? geteuid() : p->uid;
	gid_t gid = p->uid == (uid_t)-1 ? getegid() : (gid_t)p->uid;
	int gate[2], status, rc = 0;
	long pid;

	if (pipe2(gate, O_CLOEXEC) < 0)
		return -errno;
	pid = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0) {
		char byte;

		close(gate[1]);
		_exit(read(gate[0], &byte, 1) == 1 ? fn(p) : ECANCELED);
	}
	if (pid < 0)
		rc = -errno;
	else if ((flags & CLONE_NEWUSER) && sandbox_map_ids((pid_t)pid, uid, gid, NULL) < 0)
		rc = -EPERM;
	else if (write(gate[1], "", 1) != 1)
		rc = -EIO;
	close(gate[0]);
	close(gate[1]);
	if (pid > 0) {
		while (waitpid((pid_t)pid, &status, 0) < 0 && errno == EINTR)
			;
		if (rc == 0 && !WIFEXITED(status))
			rc = -EFAULT;
		else if (rc == 0)
			rc = -WEXITSTATUS(status);
	}
	return rc;
}

static void note(
	struct sandbox_host *h, const char *name, const char *state, const char *reason)
{
	struct sandbox_layer *l = &h->layer[h->n];

	if (h->n == SANDBOX_LAYERS_MAX)
		return;
	h->n++;
	snprintf(l->name, sizeof(l->name), "%s", name);
	snprintf(l->state, sizeof(l->state), "%s", state);
	snprintf(l->reason, sizeof(l->reason), "%s", reason);
}

static bool found(struct sandbox_host *h, const char *name, int rc, const char *means)
{
	note(h, name, rc == 0 ? "on" : "off", rc == 0 ? means : strerror(-rc));
	return rc == 0;
}

static int probe_nothing(const struct sandbox_plan *p)
{
	(void)p;
	return 0;
}

static int probe_inner_uid(const struct sandbox_plan *p)
{
	(void)p;
	return setresgid(1000, 1000, 1000) < 0 || setresuid(1000, 1000, 1000) < 0 ? errno : 0;
}

static int probe_outer_uid(const struct sandbox_plan *p)
{
	if (setgroups(0, NULL) < 0 || setresgid(p->uid, p->uid, p->uid) < 0 ||
		setresuid(p->uid, p->uid, p->uid) < 0)
		return errno;
	return 0;
}

static int probe_mounts(const struct sandbox_plan *p)
{
	int rc = p->host->userns ? probe_inner_uid(p) : 0;

	if (rc == 0)
		rc = -sandbox_mounts(p, -1);
	if (rc == 0 && access("/etc", F_OK) == 0)
		rc = ENOTEMPTY;
	return rc;
}

static int probe_landlock(const struct sandbox_plan *p)
{
	int rc = sandbox_no_new_privs();

	if (rc == 0)
		rc = sandbox_landlock(p);
	if (rc < 0)
		return -rc;
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES ? 0 : EFAULT;
}

static int probe_seccomp(const struct sandbox_plan *p)
{
	struct sock_filter insn[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sandbox_filter f = { ARRAY_LEN(insn), insn };
	int rc = sandbox_no_new_privs();

	(void)p;
	if (rc == 0)
		rc = sandbox_filter_load(&f);
	if (rc < 0)
		return -rc;
#ifdef TOS_VALGRIND
	return 0; /* nothing was loaded; without the layer no sandbox would be made at all */
#endif
	return syscall(SYS_getppid) < 0 && errno == EDOM ? 0 : EFAULT;
}

static int probe_mdwe(const struct sandbox_plan *p)
{
	int rc = sandbox_mdwe();
	void *at;

	(void)p;
	if (rc < 0)
		return -rc;
	at = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	return at == MAP_FAILED ? 0 : EFAULT;
}

static int probe_caps(const struct sandbox_plan *p)
{
	int rc = sandbox_drop_bounding(0);

	(void)p;
	if (rc == 0)
		rc = sandbox_drop_caps(0);
	return -rc;
}

static int probe_no_new_privs(const struct sandbox_plan *p)
{
	(void)p;
	return -sandbox_no_new_privs();
}

static int probe_rlimits(const struct sandbox_plan *p)
{
	static const int what[] = { RLIMIT_AS, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NOFILE,
		RLIMIT_CORE, RLIMIT_MEMLOCK, RLIMIT_NPROC, RLIMIT_MSGQUEUE, RLIMIT_SIGPENDING };

	(void)p;
	for (size_t i = 0; i < ARRAY_LEN(what); i++) {
		struct rlimit r;

		if (getrlimit((__rlimit_resource_t)what[i], &r) < 0 ||
			setrlimit((__rlimit_resource_t)what[i], &r) < 0)
			return errno;
	}
	return 0;
}

static int probe_oom(const struct sandbox_plan *p)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	(void)p;
	return fd < 0 || write(fd, "500", 3) < 0 ? errno : 0;
}

static void probe_namespaces(struct sandbox_host *h, struct sandbox_plan *p, bool none)
{
	static const struct {
		const char *name;
		uint64_t flag;
		size_t member;
	} kinds[] = {
		{ "pid-namespace", CLONE_NEWPID, offsetof(struct sandbox_host, pidns) },
		{ "net-namespace", CLONE_NEWNET, offsetof(struct sandbox_host, netns) },
		{ "ipc-namespace", CLONE_NEWIPC, offsetof(struct sandbox_host, ipcns) },
		{ "uts-namespace", CLONE_NEWUTS, offsetof(struct sandbox_host, utsns) },
	};
	uint64_t user;

	h->userns = found(h, "user-namespace",
		none ? -ENOSYS : try_child(p, CLONE_NEWUSER, probe_inner_uid),
		"own map of one uid");
	user = h->userns ? CLONE_NEWUSER : 0;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		*(bool *)((char *)h + kinds[i].member) = found(h, kinds[i].name,
			none ? -ENOSYS : try_child(p, user | kinds[i].flag, probe_nothing),
			"own");
	h->mountns = found(h, "mount-namespace",
		none ? -ENOSYS : try_child(p, user | CLONE_NEWNS | CLONE_NEWPID, probe_mounts),
		"empty read-only root");
	h->root_mounts = h->root && !none && try_child(p, CLONE_NEWNS, probe_nothing) == 0;
}

static void probe_own_uid(struct sandbox_host *h, struct sandbox_plan *p, uid_t uid)
{
	int rc;

	if (!h->root) {
		note(h, "own-uid", "off",
			"started by an ordinary user, whose uid all children share");
		return;
	}
	p->uid = uid;
	rc = try_child(p, 0, probe_outer_uid);
	p->uid = (uid_t)-1;
	h->own_uid = found(h, "own-uid", rc, "each child has its own");
}

static void probe_landlock_layer(struct sandbox_host *h, const struct sandbox_plan *p)
{
	char text[64];
	int abi = sandbox_landlock_abi(), rc = abi ? try_child(p, 0, probe_landlock) : -ENOSYS;

	snprintf(text, sizeof(text), "ABI %d%s", abi,
		abi < 3   ? ", without truncation, TCP and signals"
		: abi < 4 ? ", without TCP and signals"
		: abi < 6 ? ", without signals"
			  : "");
	if (rc == 0 && abi < 6)
		note(h, "landlock", "degraded", text);
	else
		found(h, "landlock", rc, text);
	h->landlock_abi = rc == 0 ? abi : 0;
}

static const char *level_of(const struct sandbox_host *h)
{
	if (!h->seccomp)
		return "none";
	if (h->mountns && h->pidns && h->netns && (h->userns || h->own_uid))
		return "full";
	return "reduced";
}

void sandbox_probe(struct sandbox_host *h, bool no_namespaces, uid_t uid)
{
	struct sandbox_plan p = { .kind = SANDBOX_VM,
		.host = h,
		.uid = (uid_t)-1,
		.program_fd = -1,
		.library_fd = -1 };

	memset(h, 0, sizeof(*h));
	h->root = geteuid() == 0;
	probe_own_uid(h, &p, uid);
	p.uid = h->own_uid ? uid : (uid_t)-1;
	probe_namespaces(h, &p, no_namespaces);
	p.uid = (uid_t)-1;
	h->seccomp =
		found(h, "seccomp", try_child(&p, 0, probe_seccomp), "list of allowed calls");
	probe_landlock_layer(h, &p);
	found(h, "no-new-privs", try_child(&p, 0, probe_no_new_privs), "on");
	h->caps = found(
		h, "capabilities", h->root ? try_child(&p, 0, probe_caps) : 0, "all dropped");
	h->mdwe = found(h, "mdwe", try_child(&p, 0, probe_mdwe), "no writable code");
	found(h, "rlimits", try_child(&p, 0, probe_rlimits), "memory, cpu, files, processes");
	found(h, "oom-score", try_child(&p, 0, probe_oom), "carriers are the first victims");
	/* Control groups are not used yet: what stands in for them is said, so that nobody
	 * assumes more. */
	note(h, "memory-limit", "degraded", "by address space, not by control group");
	note(h, "cpu-limit", "degraded", "by CPU time, not by control group");
	note(h, "freeze", "degraded", "by SIGSTOP, not by control group");
	snprintf(h->level, sizeof(h->level), "%s", level_of(h));
}
