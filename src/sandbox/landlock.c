/*
 * Landlock by raw system calls: Debian's header stops at ABI 2 and there is no library. The
 * constants are ours, masked by the ABI that the running kernel reports. See sandbox.h.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

#define FS_EXECUTE          (1ull << 0)
#define FS_WRITE_FILE       (1ull << 1)
#define FS_READ_FILE        (1ull << 2)
#define FS_READ_DIR         (1ull << 3)
#define FS_REMOVE_DIR       (1ull << 4)
#define FS_REMOVE_FILE      (1ull << 5)
#define FS_MAKE_DIR         (1ull << 7)
#define FS_MAKE_REG         (1ull << 8)
#define FS_ABI1             ((1ull << 13) - 1)
#define FS_REFER            (1ull << 13) /* ABI 2 */
#define FS_TRUNCATE         (1ull << 14) /* ABI 3 */
#define FS_IOCTL_DEV        (1ull << 15) /* ABI 5 */
#define FS_FILE             (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define NET_BIND_TCP        (1ull << 0) /* ABI 4 */
#define NET_CONNECT_TCP     (1ull << 1)
#define SCOPE_ABSTRACT_UNIX (1ull << 0) /* ABI 6 */
#define SCOPE_SIGNAL        (1ull << 1)

/* Files and directories, no devices, sockets, pipes or links. */
#define READ_WRITE                                                                             \
	(FS_WRITE_FILE | FS_READ_FILE | FS_READ_DIR | FS_REMOVE_DIR | FS_REMOVE_FILE |         \
		FS_MAKE_DIR | FS_MAKE_REG | FS_REFER | FS_TRUNCATE)
#define READ_ONLY (FS_EXECUTE | FS_READ_FILE | FS_READ_DIR)

#define CREATE_VERSION    1u
#define RULE_PATH_BENEATH 1

struct ruleset_attr {
	uint64_t fs, net, scoped;
};
struct __attribute__((packed)) path_beneath {
	uint64_t allowed;
	int32_t parent_fd;
};

int sandbox_landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_VERSION);

	return abi < 0 ? 0 : (int)abi;
}

static uint64_t handled_fs(int abi)
{
	uint64_t fs = FS_ABI1;

	if (abi >= 2)
		fs |= FS_REFER;
	if (abi >= 3)
		fs |= FS_TRUNCATE;
	if (abi >= 5)
		fs |= FS_IOCTL_DEV;
	return fs;
}

static int allow_fd(int ruleset, int fd, uint64_t rights, uint64_t handled)
{
	struct path_beneath rule = { rights & handled, fd };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		rule.allowed &=
			FS_FILE; /* the kernel refuses rights over directories on a file */
	if (rule.allowed == 0)
		return 0;
	/* What lies in no file system that is mounted, a memfd, needs no rule and can have none. */
	if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0 &&
		errno != EBADFD)
		return -errno;
	return 0;
}

/* What is not there needs no rule. */
static int allow_path(int ruleset, const char *path, uint64_t rights, uint64_t handled)
{
	int fd = open(path, O_PATH | O_CLOEXEC), rc;

	if (fd < 0)
		return 0;
	rc = allow_fd(ruleset, fd, rights, handled);
	mem_close(fd);
	return rc;
}

static int allow_each(int ruleset, const char *const *paths, uint64_t rights, uint64_t handled)
{
	int rc = 0;

	for (; *paths && rc == 0; paths++)
		rc = allow_path(ruleset, *paths, rights, handled);
	return rc;
}

static int add_rules(int ruleset, const struct sandbox_plan *p, uint64_t handled)
{
	static const char *const libraries[] = { "/lib", "/lib64", "/usr/lib", "/usr/lib64",
		"/usr/lib32", "/etc/ld.so.cache", "/ext.so", NULL };
	static const char *const proc[] = { "/proc", "/sys", "/etc/os-release", NULL };
	static const char *const devices[] = { "/dev/null", "/dev/urandom", "/dev/tty", NULL };
	static const char *const root[] = { "/", NULL };
	int rc = 0;

	if (p->kind == SANDBOX_PROGRAM)
		return 0;
	if (p->kind == SANDBOX_KERNEL || p->kind == SANDBOX_CHECK) {
		rc = allow_each(ruleset, root, READ_ONLY, handled);
		if (rc == 0)
			rc = allow_each(
				ruleset, devices, FS_READ_FILE | FS_WRITE_FILE, handled);
		if (rc == 0 && p->writable)
			rc = allow_path(ruleset, p->writable, handled, handled);
		return rc;
	}
	if (p->program_fd >= 0)
		rc = allow_fd(ruleset, SANDBOX_FD_PROGRAM, FS_EXECUTE | FS_READ_FILE, handled);
	if (rc == 0 && p->library_fd >= 0)
		rc = allow_fd(ruleset, SANDBOX_FD_LIBRARY, FS_EXECUTE | FS_READ_FILE, handled);
	if (rc == 0 && p->dynamic)
		rc = allow_each(ruleset, libraries, READ_ONLY, handled);
	if (rc == 0 && p->directory)
		rc = allow_path(ruleset, sandbox_directory(p),
			p->read_only ? FS_READ_FILE | FS_READ_DIR : READ_WRITE, handled);
	if (rc == 0 && (p->privileges & (SANDBOX_READ_PROC | SANDBOX_READ_FS)))
		rc = allow_each(ruleset, proc, FS_READ_FILE | FS_READ_DIR, handled);
#ifdef TOS_SANITIZE
	if (rc == 0) /* the runtimes read their maps */
		rc = allow_path(ruleset, "/proc", FS_READ_FILE | FS_READ_DIR, handled);
#endif
	return rc;
}

/* tos-kernel is the one with a network and with signals to nobody in particular; all others
 * have none, but programs that were granted the first. */
static struct ruleset_attr attr_of(const struct sandbox_plan *p, int abi)
{
	struct ruleset_attr attr = { handled_fs(abi), 0, 0 };

	if (p->kind == SANDBOX_PROGRAM) /* its mounts decide what it reads and writes */
		attr.fs = 0;
	if (p->kind == SANDBOX_KERNEL)
		return attr;
	if (abi >= 4 && !p->network)
		attr.net = NET_BIND_TCP | NET_CONNECT_TCP;
	if (abi >= 6)
		attr.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
	return attr;
}

int sandbox_landlock(const struct sandbox_plan *p)
{
	int abi = sandbox_landlock_abi(), rc;
	struct ruleset_attr attr = attr_of(p, abi);
	size_t bytes = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
	int ruleset;

	if (abi == 0)
		return -ENOSYS;
	if (!attr.fs && !attr.net && !attr.scoped)
		return 0;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, bytes, 0);
	if (ruleset < 0)
		return -errno;
	rc = add_rules(ruleset, p, attr.fs);
	if (rc == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		rc = -errno;
	mem_close(ruleset);
	return rc;
}
