/* Starts tos-kernel, with its own uid and its own view of the state directory where that is
 * possible. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/ipc.h"
#include "tosd/tosd.h"

#define EXEC_MS 5000

/* Until there is something to read, or it is closed. */
static int wait_status(int status_fd, struct errmsg *em)
{
	struct pollfd p = { status_fd, POLLIN, 0 };
	int64_t deadline = clock_ms() + EXEC_MS;

	for (;;) {
		int64_t left = deadline - clock_ms();
		int rc = poll(&p, 1, left > 0 ? (int)left : 0);

		if (rc > 0)
			return 0;
		if (rc == 0)
			return err_set(em, ERR_TIMEOUT, "the child was not ready within %d s",
				EXEC_MS / 1000);
		if (errno != EINTR)
			return err_errno(em, "poll");
	}
}

int exec_wait_byte(int status_fd, char *out, struct errmsg *em)
{
	int rc = wait_status(status_fd, em);

	if (rc < 0)
		return rc;
	if (read(status_fd, out, 1) != 1)
		return err_set(em, ERR_SANDBOX, "the sandbox ended before the program began");
	return 0;
}

int exec_wait(int status_fd, struct errmsg *em)
{
	char text[200];
	int rc = wait_status(status_fd, em);
	ssize_t n;

	if (rc < 0)
		return rc;
	n = read(status_fd, text, sizeof(text) - 1);
	if (n < 0)
		return err_errno(em, "cannot read a child's status");
	if (n == 0)
		return 0; /* closed by exec, or by a death that its pidfd tells */
	text[n] = 0;
	return err_set(em, ERR_SANDBOX, "%s", text);
}

/* Only what is meant for us goes on: the rest of the environment is the operator's business. */
char **kernel_environment(void)
{
	static const char *const kept[] = { "TOS_", "PATH=", "TZ=", "LANG=", "LC_",
		"ASAN_OPTIONS=", "UBSAN_OPTIONS=", "LSAN_OPTIONS=" };
	static char *out[64];
	size_t n = 0;

	for (char **e = environ; *e && n + 1 < ARRAY_LEN(out); e++)
		for (size_t i = 0; i < ARRAY_LEN(kept); i++)
			if (strncmp(*e, kept[i], strlen(kept[i])) == 0) {
				out[n++] = *e;
				break;
			}
	out[n] = NULL;
	return out;
}

static pid_t run(struct tosd *t, int socket_fd, int status_fd, int *pidfd)
{
	char *argv[] = { "tos-kernel", "-c", t->config_seen, NULL };
	bool own = t->host.own_uid && !t->kernel_keeps_uid;
	struct sandbox_plan plan = { .kind = SANDBOX_KERNEL,
		.host = &t->host,
		.filter = t->host.seccomp ? &t->filter[SANDBOX_KERNEL] : NULL,
		.uid = own ? t->uid_base : (uid_t)-1,
		.null_fd = t->null_fd,
		.out_fd = STDERR_FILENO,
		.log_fd = STDERR_FILENO,
		.socket_fd = socket_fd,
		.library_fd = -1,
		.program_fd = t->kernel.fd,
		.status_fd = status_fd,
		.gate_fd = -1,
		.writable = t->state_path,
		.argv = argv,
		.envp = kernel_environment() };
	pid_t pid;

	if (own && strcmp(t->state_path, t->config.state_dir) != 0) {
		plan.bind_from[0] = t->config.state_dir;
		plan.bind_to[0] = t->state_path;
	}
	if (own && t->program_seen[0]) {
		plan.bind_from[1] = t->prefix;
		plan.bind_to[1] = "/run/tos-prefix";
		plan.path = t->program_seen;
	}
	pid = pidfd_fork(pidfd);
	if (pid == 0)
		sandbox_run(&plan);
	return pid;
}

static int greet(struct tosd *t, int fd, uint32_t restarts, struct errmsg *em)
{
	struct tosd_config_msg c = { .head = { TOSD_MSG_VERSION, TOSD_CONFIG, sizeof(c) },
		.n_listen = t->config.n_listen,
		.as_root = t->host.own_uid,
		.owner_uid = t->owner,
		.restarts = restarts };
	static struct tosd_layers l;
	int fds[TOSD_LISTEN_MAX + 1], rc;
	const char *program = t->program_seen[0] ? t->program_seen : t->kernel.path;
	const char *prefix = t->program_seen[0] ? "/run/tos-prefix" : t->prefix;
	const char *slash = strrchr(program, '/');

	if (getrandom(&c.boot_nonce_hint, sizeof(c.boot_nonce_hint), 0) < 0)
		return err_errno(em, "no random numbers");
	snprintf(c.socket_path, sizeof(c.socket_path), "%.500s/sock", t->config.state_dir);
	snprintf(c.state_path, sizeof(c.state_path), "%s", t->state_path);
	snprintf(c.libexec, sizeof(c.libexec), "%.*s", (int)(slash - program), program);
	snprintf(c.extensions, sizeof(c.extensions), "%.480s/lib/tos/extensions", prefix);
	for (uint32_t i = 0; i < c.n_listen; i++)
		fds[i] = t->listen_fd[i];
	fds[c.n_listen] = t->state_fd;
	rc = ipc_send(fd, &c, sizeof(c), fds, c.n_listen + 1, em);
	if (rc < 0)
		return rc;

	memset(&l, 0, sizeof(l));
	l.head = (struct tosd_head){ TOSD_MSG_VERSION, TOSD_LAYERS, sizeof(l) };
	snprintf(l.level, sizeof(l.level), "%s", t->host.level);
	for (l.n = 0; l.n < t->host.n && l.n < TOSD_LAYERS_MAX; l.n++) {
		const struct sandbox_layer *from = &t->host.layer[l.n];

		memcpy(l.layer[l.n].name, from->name, sizeof(from->name));
		memcpy(l.layer[l.n].state, from->state, sizeof(from->state));
		memcpy(l.layer[l.n].reason, from->reason, sizeof(from->reason));
	}
	return ipc_send(fd, &l, sizeof(l), NULL, 0, em);
}

int kernel_start(struct tosd *t, int *fd, int *pidfd, struct errmsg *em)
{
	static uint32_t restarts;
	int pair[2], report[2], rc;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(em, "cannot make a socket");
	if (pipe2(report, O_CLOEXEC) < 0) {
		mem_close(pair[0]);
		mem_close(pair[1]);
		return err_errno(em, "cannot make a pipe");
	}
	pid = run(t, pair[1], report[1], pidfd);
	mem_close(pair[1]);
	mem_close(report[1]);
	rc = pid < 0 ? err_errno(em, "cannot fork") : exec_wait(report[0], em);
	mem_close(report[0]);
	if (rc == 0)
		rc = greet(t, pair[0], restarts, em);
	if (rc < 0) {
		if (pid > 0) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			mem_close(*pidfd);
		}
		mem_close(pair[0]);
		return err_wrap(em, rc, "cannot start tos-kernel");
	}
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	restarts++;
	*fd = pair[0];
	return pid;
}
