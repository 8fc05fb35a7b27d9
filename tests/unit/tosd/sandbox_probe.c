/*
 * Runs in the place of tos-vm (static) and of tos-ext (dynamic): tries what a test asks for and
 * answers with the result, one line each on descriptor 3.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef PROBE_DYNAMIC
#include <pthread.h>
#endif

static int argn;
static char **args;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text) - 1, fmt, ap);
	va_end(ap);
	text[n++] = '\n';
	if (write(3, text, (size_t)n) < 0)
		_exit(1);
}

static void result(long rc)
{
	if (rc < 0)
		say("errno %d %s", errno, strerror(errno));
	else
		say("ok %ld", rc);
}

static void list_fds(void)
{
	char text[512] = "fds";
	size_t at = 3;

	for (int fd = 0; fd < 256 && at < sizeof(text) - 8; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			at += (size_t)snprintf(text + at, sizeof(text) - at, " %d", fd);
	say("%s", text);
}

static void try_alloc(unsigned long mb)
{
	void *p = mmap(
		NULL, mb << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	result(p == MAP_FAILED ? -1 : 0);
}

static void try_wx(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	result(p == MAP_FAILED ? -1 : 0);
}

static void try_statvfs(const char *path)
{
	struct statvfs v;

	if (statvfs(path, &v) < 0)
		result(-1);
	else
		say("ok blocks=%lu", (unsigned long)v.f_blocks);
}

#ifdef PROBE_DYNAMIC
static void *in_thread(void *arg)
{
	return arg;
}
static void try_thread(void)
{
	pthread_t t;
	int rc = pthread_create(&t, NULL, in_thread, NULL);

	if (rc == 0)
		pthread_join(t, NULL);
	say("thread %d", rc);
}
static void try_library(void)
{
	void *h = dlopen(args[2], RTLD_NOW);

	say("library %s", h ? "ok" : dlerror());
}
static void try_read(const char *path)
{
	char b[16];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	long n = fd < 0 ? -1 : read(fd, b, sizeof(b));

	result(n);
	if (fd >= 0)
		close(fd);
}
#endif

static void obey(char *line)
{
	char *word = strtok(line, " "), *rest = strtok(NULL, "");
	long number = rest ? atol(rest) : 0;

	if (!word)
		return;
	if (strcmp(word, "open") == 0)
		result(open(rest, O_RDONLY | O_CLOEXEC));
	else if (strcmp(word, "create") == 0)
		result(open(rest, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	else if (strcmp(word, "socket") == 0)
		result(syscall(SYS_socket, number, SOCK_STREAM, 0));
	else if (strcmp(word, "fork") == 0)
		result(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
	else if (strcmp(word, "clone3") == 0)
		result(syscall(SYS_clone3, NULL, 0));
	else if (strcmp(word, "newuser") == 0)
		result(unshare(CLONE_NEWUSER));
	else if (strcmp(word, "ptrace") == 0)
		result(ptrace(PTRACE_ATTACH, number, 0, 0));
	else if (strcmp(word, "mount") == 0)
		result(syscall(SYS_mount, "x", "/", "tmpfs", 0, NULL));
	else if (strcmp(word, "kill") == 0)
		result(syscall(SYS_kill, number, SIGTERM));
	else if (strcmp(word, "tgkill") == 0)
		result(syscall(SYS_tgkill, number, number, SIGTERM));
	else if (strcmp(word, "exec") == 0)
		result(syscall(SYS_execve, "/bin/true", NULL, NULL));
	else if (strcmp(word, "io_uring") == 0)
		result(syscall(SYS_io_uring_setup, 1, NULL));
	else if (strcmp(word, "keyctl") == 0)
		result(syscall(SYS_keyctl, 0, -3, 1));
	else if (strcmp(word, "prctl") == 0)
		result(prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
	else if (strcmp(word, "prlimit") == 0)
		result(syscall(SYS_prlimit64, number, RLIMIT_CORE, NULL, NULL));
	else if (strcmp(word, "call") == 0) /* any, with arguments that mean nothing */
		result(syscall(number, -1L, -1L, -1L, -1L, -1L, -1L));
#ifdef __x86_64__
	else if (strcmp(word, "call32") == 0) { /* by the door of 32-bit programs */
		long rc = number;

		__asm__ volatile("int $0x80" : "+a"(rc) : "b"(-1), "c"(-1), "d"(-1) : "memory");
		say("ok %ld", rc);
	}
#endif
	else if (strcmp(word, "uid") == 0)
		say("uid %d pid %d", (int)getuid(), (int)getpid());
	else if (strcmp(word, "fds") == 0)
		list_fds();
	else if (strcmp(word, "alloc") == 0)
		try_alloc((unsigned long)number);
	else if (strcmp(word, "wx") == 0)
		try_wx();
	else if (strcmp(word, "statvfs") == 0)
		try_statvfs(rest);
	else if (strcmp(word, "loop") == 0)
		for (;;)
			;
	else if (strcmp(word, "crash") == 0)
		__builtin_trap();
	else if (strcmp(word, "abort") == 0)
		abort();
	else if (strcmp(word, "exit") == 0)
		_exit((int)number);
	else if (strcmp(word, "args") == 0)
		say("args %d %s env %d", argn, argn > 1 ? args[1] : "-", environ[0] != NULL);
#ifdef PROBE_DYNAMIC
	else if (strcmp(word, "thread") == 0)
		try_thread();
	else if (strcmp(word, "library") == 0)
		try_library();
	else if (strcmp(word, "read") == 0)
		try_read(rest);
#endif
	else
		say("what?");
}

int main(int argc, char **argv)
{
	char line[4096];

	argn = argc;
	args = argv;
	for (;;) {
		ssize_t n = read(3, line, sizeof(line) - 1);

		if (n <= 0)
			return 0;
		line[n] = 0;
		line[strcspn(line, "\n")] = 0;
		obey(line);
	}
}
