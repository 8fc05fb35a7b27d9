/*
 * The calls of each kind of process, and the seccomp filter made of them.
 *
 * libseccomp compiles; the program is exported once at start and loaded raw in each child, so
 * that no child needs the library. A filter is inherited: the launcher's list contains those of
 * tos-vm and tos-ext, and the stricter answer of two filters wins.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

#define V 1u   /* tos-vm, static */
#define D 2u   /* tos-vm with an interpreter, besides V */
#define E 4u   /* tos-ext */
#define K 8u   /* tos-kernel */
#define C 16u  /* tos-kernel --check-config */
#define L 32u  /* the launcher, besides V, D and E */
#define S 64u  /* sanitizer builds: every kind */
#define W 128u /* tos-ext with a directory, besides E */

#define ALL (V | E | K | C | L)

enum how {
	ANY,      /* whatever the arguments */
	ERRNO,    /* the answer is an errno */
	NOEXEC,   /* the third argument has no PROT_EXEC */
	THREAD,   /* clone: threads only, no namespaces */
	TTYQUERY, /* ioctl: only TCGETS, and that fails as on no terminal */
	SELFEXEC, /* execveat: only the descriptor that we put there */
	FAMILY,   /* socket: the families named by the table below */
	UNIX,     /* socketpair: AF_UNIX */
	KEEPFD,   /* fcntl: flags and duplicates, no locks, leases, signals */
	OWN,      /* prlimit64: of the caller itself */
};

struct call {
	const char *name;
	uint32_t kinds;
	enum how how;
	int error;
};

/* clang-format off */
static const struct call calls[] = {
	/* moving bytes over descriptors that are there */
	{ "read", ALL, ANY, 0 }, { "write", ALL, ANY, 0 }, { "readv", ALL, ANY, 0 }, { "writev", ALL, ANY, 0 },
	{ "recvmsg", ALL, ANY, 0 }, { "sendmsg", ALL, ANY, 0 }, { "recvfrom", ALL, ANY, 0 }, { "sendto", ALL, ANY, 0 },
	{ "poll", ALL, ANY, 0 }, { "ppoll", ALL, ANY, 0 }, { "select", E | K | C, ANY, 0 }, { "pselect6", E | K | C, ANY, 0 },
	{ "epoll_create1", ALL, ANY, 0 }, { "epoll_ctl", ALL, ANY, 0 }, { "epoll_wait", ALL, ANY, 0 }, { "epoll_pwait", ALL, ANY, 0 },
	{ "epoll_pwait2", ALL, ANY, 0 },
	{ "close", ALL, ANY, 0 }, { "shutdown", ALL, ANY, 0 }, { "lseek", ALL, ANY, 0 }, { "fstat", ALL, ANY, 0 },
	{ "fcntl", V, KEEPFD, 0 }, { "fcntl", E | K | C | L, ANY, 0 }, { "ioctl", V, TTYQUERY, ENOTTY }, { "ioctl", E | K | C, ANY, 0 },
	{ "dup", E | K | C | L, ANY, 0 }, { "dup2", E | K | C | L, ANY, 0 }, { "dup3", E | K | C | L, ANY, 0 },
	{ "pipe2", E | K | C | L, ANY, 0 }, { "eventfd2", E | K | C, ANY, 0 }, { "pread64", D | E | K | C | L, ANY, 0 },
	{ "pwrite64", K | W, ANY, 0 }, { "preadv", K, ANY, 0 }, { "pwritev", K, ANY, 0 },
	{ "timerfd_create", E | K, ANY, 0 }, { "timerfd_settime", E | K, ANY, 0 }, { "timerfd_gettime", E | K, ANY, 0 },
	{ "signalfd4", E | K, ANY, 0 }, { "getsockopt", E | K, ANY, 0 }, { "getsockname", E | K, ANY, 0 }, { "getpeername", E | K, ANY, 0 },
	/* memory */
	{ "mmap", V, NOEXEC, 0 }, { "mprotect", V, NOEXEC, 0 }, { "mmap", D | E | K | C | L, ANY, 0 }, { "mprotect", D | E | K | C | L, ANY, 0 },
	{ "munmap", ALL, ANY, 0 }, { "mremap", ALL, ANY, 0 }, { "madvise", ALL, ANY, 0 }, { "brk", ALL, ANY, 0 },
	{ "mincore", E | K, ANY, 0 }, { "membarrier", E | K, ANY, 0 },
	/* signals, time, threads */
	{ "rt_sigaction", ALL, ANY, 0 }, { "rt_sigprocmask", ALL, ANY, 0 }, { "rt_sigreturn", ALL, ANY, 0 }, { "sigaltstack", ALL, ANY, 0 },
	{ "rt_sigtimedwait", E | K, ANY, 0 }, { "rt_sigsuspend", E | K, ANY, 0 },
	{ "restart_syscall", ALL, ANY, 0 }, { "futex", ALL, ANY, 0 }, { "sched_yield", ALL, ANY, 0 },
	{ "clock_gettime", ALL, ANY, 0 }, { "clock_getres", ALL, ANY, 0 }, { "clock_nanosleep", ALL, ANY, 0 }, { "nanosleep", ALL, ANY, 0 },
	{ "gettimeofday", ALL, ANY, 0 }, { "time", ALL, ANY, 0 }, { "times", E | K | C, ANY, 0 },
	{ "setitimer", ALL, ANY, 0 }, { "getitimer", ALL, ANY, 0 }, { "timer_create", ALL, ANY, 0 }, { "timer_settime", ALL, ANY, 0 },
	{ "timer_gettime", ALL, ANY, 0 }, { "timer_delete", ALL, ANY, 0 }, { "timer_getoverrun", ALL, ANY, 0 },
	{ "clone", E | K | C, THREAD, 0 }, { "clone3", V | E | K | C, ERRNO, ENOSYS }, { "clone", L, ANY, 0 }, { "clone3", L, ANY, 0 },
	{ "getrandom", ALL, ANY, 0 }, { "exit", ALL, ANY, 0 }, { "exit_group", ALL, ANY, 0 },
	{ "getpid", ALL, ANY, 0 }, { "gettid", ALL, ANY, 0 }, { "getppid", E | K | C | L, ANY, 0 },
	{ "getuid", ALL, ANY, 0 }, { "geteuid", ALL, ANY, 0 }, { "getgid", ALL, ANY, 0 }, { "getegid", ALL, ANY, 0 },
	{ "getrusage", ALL, ANY, 0 }, { "uname", ALL, ANY, 0 }, { "sysinfo", E | K | C, ANY, 0 }, { "getcwd", E | K | C, ANY, 0 },
	/* abort() falls back to a trap, so nobody needs to signal by number; not even itself */
	{ "tgkill", V, ERRNO, EPERM }, { "tgkill", E | K | C, ANY, 0 }, { "kill", V, ERRNO, EPERM }, { "kill", L, ANY, 0 },
	{ "sched_getaffinity", E | K | C, ANY, 0 }, { "sched_setaffinity", E | K, ERRNO, EPERM }, { "getcpu", E | K, ANY, 0 },
	{ "sched_getparam", E | K, ANY, 0 }, { "sched_getscheduler", E | K, ANY, 0 }, { "getpriority", E | K, ANY, 0 },
	/* starting a program that is linked with libc */
	{ "execveat", V | E | K | C, SELFEXEC, 0 }, { "execveat", L, ANY, 0 },
	{ "arch_prctl", ALL, ANY, 0 }, { "set_tid_address", ALL, ANY, 0 }, { "set_robust_list", ALL, ANY, 0 }, { "rseq", ALL, ANY, 0 },
	{ "prlimit64", V | E | C | K, OWN, 0 }, { "prlimit64", L, ANY, 0 }, { "getrlimit", E | K | C, ANY, 0 },
	{ "prctl", V, ERRNO, EPERM }, { "prctl", E | K | C | L, ANY, 0 },
	{ "readlink", V, ERRNO, ENOENT }, { "readlink", D | E | K | C | L, ANY, 0 }, { "readlinkat", V, ERRNO, ENOENT }, { "readlinkat", E | K | C | L, ANY, 0 },
	/* files: which ones is the business of the mounts, of Landlock and of the uid */
	{ "newfstatat", ALL, ANY, 0 }, { "openat", V, ERRNO, ENOENT }, { "openat", D | E | K | C | L, ANY, 0 }, { "open", V, ERRNO, ENOENT },
	{ "open", D | E | K | C | L, ANY, 0 }, { "access", V, ERRNO, ENOENT }, { "access", D | E | K | C | L, ANY, 0 },
	{ "faccessat", E | K | C | L, ANY, 0 }, { "faccessat2", E | K | C | L, ANY, 0 },
	{ "stat", E | K | C | L, ANY, 0 }, { "lstat", E | K | C | L, ANY, 0 }, { "statx", E | K | C | L, ANY, 0 },
	{ "getdents64", E | K | C | L, ANY, 0 }, { "statfs", E | K, ANY, 0 }, { "fstatfs", E | K, ANY, 0 }, { "fadvise64", E | K | C, ANY, 0 },
	{ "chdir", E | K | L, ANY, 0 }, { "fchdir", K | L, ANY, 0 }, { "umask", K | C | L | W, ANY, 0 }, { "flock", K | W, ANY, 0 },
	{ "fsync", K | W, ANY, 0 }, { "fdatasync", K | W, ANY, 0 }, { "ftruncate", K | W, ANY, 0 }, { "fallocate", K | W, ANY, 0 },
	{ "rename", K | W, ANY, 0 }, { "renameat", K | W, ANY, 0 }, { "renameat2", K | W, ANY, 0 }, { "unlink", K | W, ANY, 0 }, { "unlinkat", K | W, ANY, 0 },
	{ "mkdir", K | L | W, ANY, 0 }, { "mkdirat", K | L | W, ANY, 0 }, { "rmdir", K | W, ANY, 0 }, { "link", K, ANY, 0 }, { "linkat", K, ANY, 0 },
	{ "chmod", K, ANY, 0 }, { "fchmod", K | L, ANY, 0 }, { "fchmodat", K, ANY, 0 }, { "fchown", K, ANY, 0 }, { "chown", K, ANY, 0 },
	{ "utimensat", K, ANY, 0 }, { "copy_file_range", K, ANY, 0 }, { "sendfile", K, ANY, 0 },
	{ "inotify_init1", K, ANY, 0 }, { "inotify_add_watch", K, ANY, 0 }, { "inotify_rm_watch", K, ANY, 0 },
	/* the network: of the kernel alone */
	{ "socket", K, FAMILY, EPERM }, { "socketpair", E | K | L, UNIX, 0 }, { "bind", K, ANY, 0 }, { "listen", K, ANY, 0 },
	{ "accept", K, ANY, 0 }, { "accept4", K, ANY, 0 }, { "connect", K, ANY, 0 }, { "setsockopt", K, ANY, 0 },
	/* A tos-ext has no socket but what the kernel connected for it and handed over; it is not connected
	 * anew, whatever libcurl 7.88 wants, which takes this answer for the usual one. */
	{ "connect", E, ERRNO, EINPROGRESS },
	{ "sendmmsg", K, ANY, 0 }, { "recvmmsg", K, ANY, 0 }, { "socket", E | C, ERRNO, EPERM },
	{ "pidfd_open", K | L, ANY, 0 }, { "pidfd_send_signal", K | L, ANY, 0 }, { "wait4", E | K | L, ANY, 0 }, { "waitid", K | L, ANY, 0 },
	/* building sandboxes: of the launcher alone */
	{ "mount", L, ANY, 0 }, { "umount2", L, ANY, 0 }, { "pivot_root", L, ANY, 0 }, { "mount_setattr", L, ANY, 0 }, { "symlinkat", L, ANY, 0 },
	{ "symlink", L, ANY, 0 }, { "mknod", L, ANY, 0 }, { "mknodat", L, ANY, 0 },
	{ "unshare", L, ANY, 0 }, { "setresuid", L, ANY, 0 }, { "setresgid", L, ANY, 0 }, { "setgroups", L, ANY, 0 }, { "capset", L, ANY, 0 },
	{ "capget", L, ANY, 0 }, { "getpriority", L, ANY, 0 }, { "setpriority", L, ANY, 0 }, { "close_range", E | K | L, ANY, 0 }, { "seccomp", L, ANY, 0 }, { "memfd_create", K, ANY, 0 },
	{ "landlock_create_ruleset", L, ANY, 0 }, { "landlock_add_rule", L, ANY, 0 }, { "landlock_restrict_self", L, ANY, 0 },
	/* sanitizer builds */
	{ "clone", S, ANY, 0 }, { "openat", S, ANY, 0 }, { "open", S, ANY, 0 }, { "readlink", S, ANY, 0 }, { "prctl", S, ANY, 0 }, { "mmap", S, ANY, 0 },
	{ "mprotect", S, ANY, 0 }, { "personality", S, ANY, 0 }, { "sched_getaffinity", S, ANY, 0 }, { "pread64", S, ANY, 0 }, { "ioctl", S, ANY, 0 },
	{ "fcntl", S, ANY, 0 }, { "stat", S, ANY, 0 }, { "access", S, ANY, 0 }, { "getppid", S, ANY, 0 }, { "dup", S, ANY, 0 }, { "dup2", S, ANY, 0 },
	{ "pipe2", S, ANY, 0 }, { "pipe", S, ANY, 0 }, { "process_vm_readv", S, ANY, 0 }, { "getrlimit", S, ANY, 0 }, { "tgkill", S, ANY, 0 },
	{ "readlinkat", S, ANY, 0 }, { "getcwd", S, ANY, 0 }, { "wait4", S, ANY, 0 }, { "getdents", S, ANY, 0 }, { "getdents64", S, ANY, 0 }, { "ptrace", S, ANY, 0 }, { "kill", S, ANY, 0 }, { "sched_yield", S, ANY, 0 },
};
/* clang-format on */

/* Ordinary programs may call whatever is not here. Their launcher's filter is inherited, so it
 * refuses what neither needs. */
#define P  1u /* programs */
#define PL 3u /* and their launcher */

enum refuse {
	ALWAYS,
	NAMESPACES, /* clone with a namespace flag */
	FAMILIES,   /* socket: but unix, inet, inet6, netlink */
	STUFFING,   /* ioctl: pushing bytes into a terminal */
};

/* clang-format off */
static const struct {
	const char *name;
	uint32_t kinds;
	enum refuse what;
	int error;
} refused[] = {
	/* other sandboxes and what they are built from */
	{ "clone3", PL, ALWAYS, ENOSYS }, { "clone", P, NAMESPACES, EPERM }, { "unshare", P, ALWAYS, EPERM }, { "setns", PL, ALWAYS, EPERM },
	{ "mount", P, ALWAYS, EPERM }, { "umount2", P, ALWAYS, EPERM }, { "pivot_root", P, ALWAYS, EPERM }, { "mount_setattr", P, ALWAYS, EPERM },
	{ "move_mount", PL, ALWAYS, EPERM }, { "open_tree", PL, ALWAYS, EPERM }, { "fsopen", PL, ALWAYS, EPERM }, { "fsconfig", PL, ALWAYS, EPERM },
	{ "fsmount", PL, ALWAYS, EPERM }, { "fspick", PL, ALWAYS, EPERM }, { "chroot", PL, ALWAYS, EPERM },
	/* other processes */
	{ "ptrace", PL, ALWAYS, EPERM }, { "process_vm_readv", PL, ALWAYS, EPERM }, { "process_vm_writev", PL, ALWAYS, EPERM },
	{ "process_madvise", PL, ALWAYS, EPERM }, { "kcmp", PL, ALWAYS, EPERM }, { "pidfd_getfd", PL, ALWAYS, EPERM },
	/* large and privileged parts of the kernel */
	{ "bpf", PL, ALWAYS, EPERM }, { "perf_event_open", PL, ALWAYS, EPERM }, { "userfaultfd", PL, ALWAYS, EPERM },
	{ "io_uring_setup", PL, ALWAYS, ENOSYS }, { "io_uring_enter", PL, ALWAYS, ENOSYS }, { "io_uring_register", PL, ALWAYS, ENOSYS },
	{ "add_key", PL, ALWAYS, EPERM }, { "request_key", PL, ALWAYS, EPERM }, { "keyctl", PL, ALWAYS, EPERM },
	{ "kexec_load", PL, ALWAYS, EPERM }, { "kexec_file_load", PL, ALWAYS, EPERM }, { "init_module", PL, ALWAYS, EPERM },
	{ "finit_module", PL, ALWAYS, EPERM }, { "delete_module", PL, ALWAYS, EPERM }, { "reboot", PL, ALWAYS, EPERM },
	{ "swapon", PL, ALWAYS, EPERM }, { "swapoff", PL, ALWAYS, EPERM }, { "acct", PL, ALWAYS, EPERM }, { "quotactl", PL, ALWAYS, EPERM },
	{ "quotactl_fd", PL, ALWAYS, EPERM }, { "syslog", PL, ALWAYS, EPERM }, { "sethostname", PL, ALWAYS, EPERM },
	{ "setdomainname", PL, ALWAYS, EPERM }, { "settimeofday", PL, ALWAYS, EPERM }, { "clock_settime", PL, ALWAYS, EPERM },
	{ "adjtimex", PL, ALWAYS, EPERM }, { "clock_adjtime", PL, ALWAYS, EPERM }, { "iopl", PL, ALWAYS, EPERM }, { "ioperm", PL, ALWAYS, EPERM },
	{ "modify_ldt", PL, ALWAYS, EPERM }, { "lookup_dcookie", PL, ALWAYS, EPERM }, { "vhangup", PL, ALWAYS, EPERM },
	{ "name_to_handle_at", PL, ALWAYS, EPERM }, { "open_by_handle_at", PL, ALWAYS, EPERM }, { "fanotify_init", PL, ALWAYS, EPERM },
	{ "move_pages", PL, ALWAYS, EPERM }, { "migrate_pages", PL, ALWAYS, EPERM }, { "personality", PL, ALWAYS, EPERM },
	/* SysV and POSIX queues outlive a process and are shared where the host lacks ipc namespaces */
	{ "shmget", PL, ALWAYS, ENOSYS }, { "shmat", PL, ALWAYS, ENOSYS }, { "shmctl", PL, ALWAYS, ENOSYS }, { "semget", PL, ALWAYS, ENOSYS },
	{ "semop", PL, ALWAYS, ENOSYS }, { "semctl", PL, ALWAYS, ENOSYS }, { "semtimedop", PL, ALWAYS, ENOSYS }, { "msgget", PL, ALWAYS, ENOSYS },
	{ "msgsnd", PL, ALWAYS, ENOSYS }, { "msgrcv", PL, ALWAYS, ENOSYS }, { "msgctl", PL, ALWAYS, ENOSYS }, { "mq_open", PL, ALWAYS, ENOSYS },
	{ "mq_unlink", PL, ALWAYS, ENOSYS },
	/* a file in memory that no process has mapped is in no count */
	{ "memfd_create", PL, ALWAYS, ENOSYS }, { "memfd_secret", PL, ALWAYS, ENOSYS },
	{ "socket", P, FAMILIES, EAFNOSUPPORT }, { "ioctl", P, STUFFING, EPERM },
};
/* clang-format on */

static uint32_t columns_of(enum sandbox_kind kind, bool dynamic)
{
	static const uint32_t own[SANDBOX_KINDS] = { [SANDBOX_KERNEL] = K,
		[SANDBOX_CHECK] = C,
		[SANDBOX_LAUNCHER] = L | V | D | E | W,
		[SANDBOX_VM] = V,
		[SANDBOX_EXT] = E };
	uint32_t columns = own[kind];

	if (kind == SANDBOX_VM && dynamic)
		columns |= D;
#ifdef TOS_SANITIZE
	columns |= S;
#endif
	return columns;
}

/* A later row that allows whatever the arguments overrules a narrower one: that is how D and S
 * widen V. */
static bool is_overruled(const struct call *c, uint32_t columns)
{
	if (c->how == ANY)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(calls); i++)
		if (calls[i].how == ANY && (calls[i].kinds & columns) &&
			strcmp(calls[i].name, c->name) == 0)
			return true;
	return false;
}

static uint32_t columns_of_ext(uint32_t privileges)
{
	return columns_of(SANDBOX_EXT, true) | (privileges & SANDBOX_DIRECTORY ? W : 0);
}

static char list_says(uint32_t columns, const char *call)
{
	char says = '-';

	for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
		if (!(calls[i].kinds & columns) || strcmp(calls[i].name, call) != 0 ||
			is_overruled(&calls[i], columns))
			continue;
		says = calls[i].how == ANY ? 'a' : calls[i].how == ERRNO ? 'e' : 'c';
	}
	return says;
}

char sandbox_filter_says(enum sandbox_kind kind, bool dynamic, const char *call)
{
	char says = '-';

	if (!sandbox_profile(kind)->denies)
		return list_says(columns_of(kind, dynamic), call);
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		if ((refused[i].kinds & (kind == SANDBOX_MAKER ? PL & ~P : P)) &&
			strcmp(refused[i].name, call) == 0)
			says = refused[i].what == ALWAYS ? 'e' : 'c';
	return says;
}

char sandbox_filter_says_ext(uint32_t privileges, const char *call)
{
	return list_says(columns_of_ext(privileges), call);
}

#define MASKED(arg, mask, value) SCMP_CMP64((arg), SCMP_CMP_MASKED_EQ, (mask), (value))
#define EQUALS(arg, value)       ((struct scmp_arg_cmp){ (arg), SCMP_CMP_EQ, (value), 0 })
#define NS_FLAGS                                                                               \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |            \
		CLONE_NEWNET | CLONE_NEWCGROUP)

static int add_each(scmp_filter_ctx ctx, uint32_t action, int nr, const uint64_t *values,
	size_t n, unsigned arg)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = seccomp_rule_add(ctx, action, nr, 1, EQUALS(arg, values[i]));
	return rc;
}

static int add_call(scmp_filter_ctx ctx, const struct call *c, int nr)
{
	static const uint64_t families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };
	static const uint64_t commands[] = { F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD,
		F_DUPFD_CLOEXEC };
	const uint32_t allow = SCMP_ACT_ALLOW;

	switch (c->how) {
	case ANY:
		return seccomp_rule_add(ctx, allow, nr, 0);
	case ERRNO:
		return seccomp_rule_add(ctx, SCMP_ACT_ERRNO((uint32_t)c->error), nr, 0);
	case NOEXEC:
		return seccomp_rule_add(ctx, allow, nr, 1, MASKED(2, PROT_EXEC, 0));
	case THREAD:
		return seccomp_rule_add(ctx, allow, nr, 1,
			MASKED(0, NS_FLAGS | CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM));
	case TTYQUERY:
		return seccomp_rule_add(ctx, SCMP_ACT_ERRNO((uint32_t)c->error), nr, 0);
	case SELFEXEC:
		return seccomp_rule_add(ctx, allow, nr, 2, EQUALS(0, SANDBOX_FD_PROGRAM),
			EQUALS(4, AT_EMPTY_PATH));
	case FAMILY:
		return add_each(ctx, allow, nr, families, ARRAY_LEN(families), 0);
	case UNIX:
		return seccomp_rule_add(ctx, allow, nr, 1, EQUALS(0, AF_UNIX));
	case KEEPFD:
		return add_each(ctx, allow, nr, commands, ARRAY_LEN(commands), 1);
	case OWN:
		return seccomp_rule_add(ctx, allow, nr, 1, EQUALS(0, 0));
	}
	return -EINVAL;
}

static int refuse_call(scmp_filter_ctx ctx, enum refuse what, uint32_t action, int nr)
{
	static const uint64_t flags[] = { CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC,
		CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP };
	static const uint64_t stuffing[] = { TIOCSTI, 0x541c /* TIOCLINUX */ };
	int rc = 0;

	switch (what) {
	case ALWAYS:
		return seccomp_rule_add(ctx, action, nr, 0);
	case NAMESPACES:
		for (size_t i = 0; i < ARRAY_LEN(flags) && rc == 0; i++)
			rc = seccomp_rule_add(
				ctx, action, nr, 1, MASKED(0, flags[i], flags[i]));
		return rc;
	case FAMILIES:
		for (uint64_t f = 0; f < AF_NETLINK && rc == 0; f++)
			if (f != AF_UNIX && f != AF_INET && f != AF_INET6)
				rc = seccomp_rule_add(ctx, action, nr, 1, EQUALS(0, f));
		return rc ? rc
			  : seccomp_rule_add(ctx, action, nr, 1,
				    ((struct scmp_arg_cmp){ 0, SCMP_CMP_GT, AF_NETLINK, 0 }));
	case STUFFING:
		/* The kernel looks at 32 bits of the command. */
		for (size_t i = 0; i < ARRAY_LEN(stuffing) && rc == 0; i++)
			rc = seccomp_rule_add(
				ctx, action, nr, 1, MASKED(1, 0xffffffffu, stuffing[i]));
		return rc;
	}
	return -EINVAL;
}

static int fill_refused(scmp_filter_ctx ctx, enum sandbox_kind kind, struct errmsg *em)
{
	uint32_t column = kind == SANDBOX_MAKER ? PL & ~P : P;

	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		int nr = seccomp_syscall_resolve_name(refused[i].name), rc;

		if (!(refused[i].kinds & column) || nr == __NR_SCMP_ERROR || nr < 0)
			continue;
		rc = refuse_call(
			ctx, refused[i].what, SCMP_ACT_ERRNO((uint32_t)refused[i].error), nr);
		if (rc < 0)
			return err_set(em, ERR_SANDBOX, "seccomp rule for %s: %s",
				refused[i].name, strerror(-rc));
	}
	return 0;
}

static int fill(scmp_filter_ctx ctx, uint32_t columns, uint32_t fallback, struct errmsg *em)
{
	for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
		const struct call *c = &calls[i];
		int nr, rc;

		if (!(c->kinds & columns) || is_overruled(c, columns))
			continue;
		nr = seccomp_syscall_resolve_name(c->name);
		if (nr == __NR_SCMP_ERROR || nr < 0)
			continue; /* another architecture's, or newer than libseccomp */
		if (c->how == ERRNO && fallback == SCMP_ACT_ERRNO((uint32_t)c->error))
			continue; /* libseccomp refuses a rule that says what the default says
				   */
		rc = add_call(ctx, c, nr);
		if (rc < 0 && rc != -EEXIST)
			return err_set(em, ERR_SANDBOX, "seccomp rule for %s: %s", c->name,
				strerror(-rc));
	}
	return 0;
}

static int export(scmp_filter_ctx ctx, struct sandbox_filter *out, struct errmsg *em)
{
	AUTOCLOSE int fd = memfd_create("filter", MFD_CLOEXEC);
	struct stat st;
	size_t bytes;
	int rc;

	if (fd < 0)
		return err_errno(em, "cannot make a memory file");
	rc = seccomp_export_bpf(ctx, fd);
	if (rc < 0)
		return err_set(em, ERR_SANDBOX, "cannot compile the filter: %s", strerror(-rc));
	if (fstat(fd, &st) < 0)
		return err_errno(em, "cannot size the filter");
	bytes = (size_t)st.st_size;
	if (bytes == 0 || bytes % sizeof(struct sock_filter) != 0 ||
		bytes / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return err_set(em, ERR_SANDBOX, "the filter has %zu bytes", bytes);
	out->insn = mem_zero(bytes);
	out->n = (unsigned short)(bytes / sizeof(struct sock_filter));
	if (pread(fd, out->insn, bytes, 0) != (ssize_t)bytes) {
		sandbox_filter_fini(out);
		return err_errno(em, "cannot read the filter");
	}
	return 0;
}

static int make(
	enum sandbox_kind kind, uint32_t columns, struct sandbox_filter *out, struct errmsg *em)
{
	const struct sandbox_profile *row = sandbox_profile(kind);
	uint32_t fallback = row->denies ? SCMP_ACT_ALLOW
			    : row->kill ? SCMP_ACT_KILL_PROCESS
					: SCMP_ACT_ERRNO(EPERM);
	scmp_filter_ctx ctx;
	int rc;

#ifdef TOS_VALGRIND
	seccomp_api_set(5); /* it finds out by the call that valgrind does not know */
#endif
	ctx = seccomp_init(fallback);
	if (!ctx)
		return err_set(em, ERR_NOMEM, "libseccomp gave no context");
	/* Another architecture's calls (int 0x80, x32) have other numbers, so the list says
	 * nothing of them. */
	seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree */
	rc = row->denies ? fill_refused(ctx, kind, em) : fill(ctx, columns, fallback, em);
	if (rc == 0)
		rc = export(ctx, out, em);
	seccomp_release(ctx);
	return rc;
}

int sandbox_filter_make(
	enum sandbox_kind kind, bool dynamic, struct sandbox_filter *out, struct errmsg *em)
{
	return make(kind, columns_of(kind, dynamic), out, em);
}

int sandbox_filter_make_ext(uint32_t privileges, struct sandbox_filter *out, struct errmsg *em)
{
	return make(SANDBOX_EXT, columns_of_ext(privileges), out, em);
}

void sandbox_filter_fini(struct sandbox_filter *f)
{
	free(f->insn);
	f->insn = NULL;
	f->n = 0;
}

int sandbox_filter_load(const struct sandbox_filter *f)
{
#ifdef TOS_VALGRIND
	/* It does not know the call, and makes many itself that no list has. */
	(void)f;
	return 0;
#endif
	struct sock_fprog prog = { .len = f->n, .filter = f->insn };

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0 ? -errno : 0;
}
