/*
 * What a program sees of the host, and the first process of its sandbox.
 *
 * The view is built once, by the launcher of programs, in a mount namespace of its own
 * (sandbox_skeleton); each program gets a copy of it with a /proc and a /tmp of its own, which
 * costs two mounts. The first process, number 1 of the program's pid namespace, is a copy of the
 * launcher that never executes anything: a program that were number 1 itself would ignore every
 * signal that it has no handler for, and could not be asked to end. Nothing is allocated here.
 * See sandbox.h.
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

/* glibc's sys/mount.h and the kernel's header exclude each other. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
	const void *data);
int umount2(const char *target, int flags);
#define DETACH 2

#define SCRATCH    "/tmp"
#define SCRIPT     SCRATCH "/.program"
#define SCRIPT_MAX ((off_t)16 << 20)

enum what { DIRECTORY, SYSTEM, FILE_, DEVICE, PROC };

static int lock(const char *path, unsigned flags, uint64_t set)
{
	struct mount_attr attr = { .attr_set = set };

	if (syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &attr, sizeof(attr)) == 0)
		return 0;
	/* Before 5.12: the top mount only. */
	if (errno != ENOSYS || mount(NULL, path, NULL,
				       MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID |
					       (set & MOUNT_ATTR_NODEV ? MS_NODEV : 0),
				       NULL) < 0)
		return -errno;
	return 0;
}

static int copy_link(const char *from, const char *to)
{
	char text[256];
	ssize_t n = readlink(from, text, sizeof(text) - 1);

	if (n < 0)
		return -errno;
	text[n] = 0;
	return symlink(text, to) < 0 && errno != EEXIST ? -errno : 0;
}

/* Show a file or directory of the host below the new root, which is the working directory. */
static int show(const char *from, enum what what)
{
	const char *to = from + 1;
	uint64_t set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
	struct stat st;
	int fd;

	if (lstat(from, &st) < 0)
		return 0; /* what the host lacks the program lacks */
	if (S_ISLNK(st.st_mode) && what != FILE_)
		return copy_link(from, to);
	if (S_ISLNK(st.st_mode) && stat(from, &st) < 0)
		return 0;
	if (S_ISDIR(st.st_mode)) {
		if (mkdir(to, 0755) < 0 && errno != EEXIST)
			return -errno;
	} else {
		fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			return -errno;
		mem_close(fd);
	}
	/* Recursive: a mount in a less privileged namespace may not uncover what lies below
	 * another. */
	if (mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
		return what == SYSTEM ? -errno : 0;
	if (what == PROC)
		return 0; /* covered in each program's own view, and must be seen in full until then */
	if (what != DEVICE)
		set |= MOUNT_ATTR_NODEV;
	if (what == FILE_ || what == DEVICE)
		set |= MOUNT_ATTR_NOEXEC;
	return lock(to, AT_RECURSIVE, set);
}

static int show_each(const char *const *paths, enum what what)
{
	int rc = 0;

	for (; *paths && rc == 0; paths++)
		rc = show(*paths, what);
	return rc;
}

static int fill_root(void)
{
	static const char *const made[] = { "etc", "dev", "proc", "tmp", "var", "run",
		"var/lib", NULL };
	static const char *const system[] = { "/usr", "/bin", "/sbin", "/lib", "/lib32",
		"/lib64", NULL };
	/* What ordinary programs look up; nothing that belongs to this host's keeping. */
	static const char *const files[] = { "/etc/alternatives", "/etc/ld.so.cache",
		"/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone",
		"/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/hosts",
		"/etc/protocols", "/etc/services", "/etc/os-release", "/etc/debian_version",
		"/etc/ssl/certs", "/etc/mime.types", "/etc/magic", "/etc/locale.alias",
		"/etc/python3",
		/* which packages are installed, as everybody on the host may read it */
		"/var/lib/dpkg", NULL };
	static const char *const devices[] = { "/dev/null", "/dev/zero", "/dev/full",
		"/dev/random", "/dev/urandom", NULL };
	static const char *const links[][2] = { { "/proc/self/fd", "dev/fd" },
		{ "/proc/self/fd/0", "dev/stdin" }, { "/proc/self/fd/1", "dev/stdout" },
		{ "/proc/self/fd/2", "dev/stderr" }, { SCRATCH, "dev/shm" },
		{ SCRATCH, "var/tmp" } };
	int rc;

	for (const char *const *m = made; *m; m++)
		if (mkdir(*m, 0755) < 0)
			return -errno;
	if (mkdir("etc/ssl", 0755) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0)
			return -errno;
	rc = show_each(system, SYSTEM);
	if (rc == 0)
		rc = show_each(files, FILE_);
	if (rc == 0)
		rc = show_each(devices, DEVICE);
	return rc ? rc : show("/proc", PROC);
}

int sandbox_skeleton(void)
{
	int rc;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	/* Any directory that surely exists and of which nothing is shown. */
	if (mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		    "size=256k,nr_inodes=128,mode=0755") < 0)
		return -errno;
	if (chdir("/tmp") < 0)
		return -errno;
	rc = fill_root();
	if (rc < 0)
		return rc;
	/* Both names are one directory: the old root then lies on top of the new one and is
	 * detached. */
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return -errno;
	if (umount2(".", DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return lock("/", 0,
		MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

int sandbox_program_mounts(const struct sandbox_plan *p)
{
	char options[96];

	/* A container may not let us have one of our own. The host's must not be seen instead. */
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 &&
		mount("tmpfs", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
			"size=4k,nr_inodes=2,mode=0555") < 0)
		return -errno;
	/* No executing there: what runs is what was admitted, and what the system directories
	 * hold. */
	snprintf(options, sizeof(options), "size=%llu,nr_inodes=16384,mode=0700",
		(unsigned long long)p->scratch_bytes);
	if (mount("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0)
		return -errno;
	return chdir(SCRATCH) < 0 ? -errno : 0;
}

/* ---- process 1 */

_Noreturn static void give_up(const char *what, int error)
{
	char text[160];
	int n = snprintf(text, sizeof(text), "%s: %s", what, strerror(error));

	if (write(SANDBOX_FD_STATUS, text, (size_t)n) < 0) {
		/* nobody listens any more */
	}
	_exit(127);
}

/* A program that came as bytes has no path by which an interpreter could open it. */
static int copy_script(void)
{
	AUTOCLOSE int to = open(SCRIPT, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0500);
	char block[16384];
	off_t at = 0;
	ssize_t n;

	if (to < 0)
		return -errno;
	while ((n = pread(SANDBOX_FD_PROGRAM, block, sizeof(block), at)) > 0) {
		if (write(to, block, (size_t)n) != n)
			return -errno;
		at += n;
		if (at > SCRIPT_MAX)
			return -EFBIG;
	}
	return n < 0 ? -errno : 0;
}

/* "#!INTERPRETER [ARGUMENT]", as the kernel reads it. */
static bool script_line(char *line, size_t n, char **interpreter, char **argument)
{
	char *end;

	line[n] = 0;
	if (n < 3 || line[0] != '#' || line[1] != '!' || !(end = strchr(line, '\n')))
		return false;
	*end = 0;
	*interpreter = line + 2 + strspn(line + 2, " \t");
	end = *interpreter + strcspn(*interpreter, " \t\r");
	*argument = NULL;
	if (*end) {
		*end++ = 0;
		end += strspn(end, " \t");
		end[strcspn(end, "\r")] = 0;
		*argument = *end ? end : NULL;
	}
	return **interpreter == '/';
}

#define ARGS_MAX 1024
static struct {
	const char *path; /* NULL: the descriptor */
	char *argv[ARGS_MAX + 4];
	char line[256];
	volatile bool failed; /* to execute */
} start;

/* Is it, in our view of the files, the one that was opened and looked at? */
static bool same_file(const char *path)
{
	struct stat a, b;

	return stat(path, &a) == 0 && fstat(SANDBOX_FD_PROGRAM, &b) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static void prepare(const struct sandbox_plan *p)
{
	char *interpreter, *argument;
	ssize_t got;
	size_t n = 0;
	int rc;

	if (p->path && same_file(p->path)) {
		start.path = p->path;
		for (n = 0; p->argv[n] && n < ARGS_MAX; n++)
			start.argv[n] = p->argv[n];
		return;
	}
	got = pread(SANDBOX_FD_PROGRAM, start.line, sizeof(start.line) - 1, 0);
	if (got > 0 && script_line(start.line, (size_t)got, &interpreter, &argument)) {
		rc = copy_script();
		if (rc < 0)
			give_up("cannot copy the script", -rc);
		start.path = interpreter;
		start.argv[n++] = interpreter;
		if (argument)
			start.argv[n++] = argument;
		start.argv[n++] = (char *)(uintptr_t)SCRIPT;
		for (size_t i = 1; p->argv[0] && p->argv[i] && n < ARGS_MAX + 2; i++)
			start.argv[n++] = p->argv[i];
		return;
	}
	for (n = 0; p->argv[n] && n < ARGS_MAX; n++)
		start.argv[n] = p->argv[n];
}

/* In a child that shares our memory until it executes. */
_Noreturn static void child(const struct sandbox_plan *p)
{
	struct rlimit cpu = { p->cpu_s, p->cpu_s };
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (p->cpu_s && prlimit(0, RLIMIT_CPU, &cpu, NULL) < 0) {
		start.failed = true;
		give_up("cannot bound its CPU time", errno);
	}
	if (start.path)
		execve(start.path, start.argv, p->envp);
	else
		syscall(SYS_execveat, SANDBOX_FD_PROGRAM, "", start.argv, p->envp,
			AT_EMPTY_PATH);
	start.failed = true;
	give_up("cannot execute the program", errno);
}

/* Between two looks at its memory; longer where a look takes long: at most one part in LOOK_SHARE of a processor goes
 * into that. */
#define LOOK_MS    200
#define LOOK_SHARE 50

static int64_t now_us(clockid_t clock)
{
	struct timespec t = { 0 };

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* True: it holds more than it may. Each of its processes is bounded by RLIMIT_DATA at every moment; this is for their
 * sum, and for shared memory. */
static bool look(const struct sandbox_plan *p, struct sandbox_report *r, int64_t *next_us)
{
	int64_t begun = now_us(CLOCK_MONOTONIC), cpu = now_us(CLOCK_THREAD_CPUTIME_ID);
	uint64_t held = sandbox_held(false);

	if (held > p->data_bytes)
		held = sandbox_held(true);
	cpu = (now_us(CLOCK_THREAD_CPUTIME_ID) - cpu) * LOOK_SHARE;
	*next_us = begun + (cpu > LOOK_MS * 1000 ? cpu : LOOK_MS * 1000);
	if (held > r->held)
		r->held = held;
	return held > p->data_bytes;
}

_Noreturn static void report_end(const struct sandbox_report *r)
{
	_exit(write(SANDBOX_FD_STATUS, r, sizeof(*r)) < 0 ? 126 : 0);
}

/* To the program, its process group, or whoever is left. */
static void pass_on(pid_t main_pid, int sig)
{
	if (kill(-main_pid, sig) < 0)
		kill(main_pid, sig);
}

_Noreturn void sandbox_init(const struct sandbox_plan *p)
{
	struct sandbox_report report = { .magic = SANDBOX_REPORT_MAGIC };
	struct timespec pause;
	int64_t next_us, left_us;
	sigset_t all;
	pid_t pid, got;
	int status, sig;

	prctl(PR_SET_NAME, "tos-program", 0, 0, 0);
	/* The program has our uid: nothing of us is its to look into. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prepare(p);
	/* Blocked is not ignored, which default actions of process 1 are. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	pid = vfork();
	if (pid == 0)
		child(p); /* NOLINT(clang-analyzer-unix.Vfork): says what it does between the two */
	if (pid < 0)
		give_up("cannot fork", errno);
	if (start.failed)
		_exit(127); /* has said why */
	for (int fd = 0; fd <= SANDBOX_FD_PROGRAM; fd++)
		close(fd);
	if (write(SANDBOX_FD_STATUS, "", 1) != 1)
		_exit(127);
	next_us = now_us(CLOCK_MONOTONIC) + LOOK_MS * 1000;
	for (;;) {
		while ((got = waitpid(-1, &status, WNOHANG)) > 0)
			if (got == pid) {
				report.status = status;
				report_end(&report);
			}
		left_us = next_us - now_us(CLOCK_MONOTONIC);
		if (left_us <= 0) {
			if (look(p, &report, &next_us)) { /* all of them end with us */
				report.status = SIGKILL;
				report.over = 1;
				report_end(&report);
			}
			continue;
		}
		pause = (struct timespec){ left_us / 1000000, left_us % 1000000 * 1000 };
		sig = sigtimedwait(&all, NULL, &pause);
		if (sig > 0 && sig != SIGCHLD)
			pass_on(pid, sig);
	}
}
