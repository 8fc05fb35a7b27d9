/* Has the configuration read by tos-kernel --check-config, in a sandbox: tosd itself parses
 * nothing. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "ipc/action.h"
#include "tosd/tosd.h"

#define CHECK_MS   10000
#define TEXT_BYTES ((size_t)1 << 20)

struct answer {
	int fd;
	struct buf bytes;
	bool done;
};

/* Read both pipes to their end. */
static int collect(struct answer a[2], struct errmsg *em)
{
	int64_t deadline = clock_ms() + CHECK_MS;

	while (!a[0].done || !a[1].done) {
		struct pollfd p[2] = { { a[0].done ? -1 : a[0].fd, POLLIN, 0 },
			{ a[1].done ? -1 : a[1].fd, POLLIN, 0 } };
		int64_t left = deadline - clock_ms();

		if (left <= 0)
			return err_set(em, ERR_TIMEOUT,
				"tos-kernel --check-config took over %d s", CHECK_MS / 1000);
		if (poll(p, 2, (int)left) < 0 && errno != EINTR)
			return err_errno(em, "poll");
		for (int i = 0; i < 2; i++) {
			uint8_t block[16384];
			ssize_t n;

			if (a[i].done || !p[i].revents)
				continue;
			n = read(a[i].fd, block, sizeof(block));
			if (n <= 0)
				a[i].done = true;
			else if (buf_add(&a[i].bytes, block, (size_t)n) < 0)
				return err_set(em, ERR_TOO_LARGE,
					"tos-kernel --check-config said too much");
		}
	}
	return 0;
}

static bool is_text(const char *p, size_t cap)
{
	return memchr(p, 0, cap) != NULL;
}

static bool is_grant(const struct tosd_grant *g)
{
	return is_text(g->name, sizeof(g->name)) &&
	       is_text(g->directory, sizeof(g->directory)) &&
	       (!g->directory[0] || g->directory[0] == '/');
}

/* The checker is ours, but it read the file: believe nothing about its table. */
bool check_table(const struct tosd_config *c)
{
	if (c->version != TOSD_MSG_VERSION || c->length != sizeof(*c))
		return false;
	if (c->n_listen > TOSD_LISTEN_MAX || c->n_ext > TOSD_EXT_MAX ||
		c->n_require > ARRAY_LEN(c->require))
		return false;
	if (!is_text(c->name, sizeof(c->name)) ||
		!is_text(c->state_dir, sizeof(c->state_dir)) ||
		!is_text(c->log_level, sizeof(c->log_level)) ||
		!is_text(c->installed_privileges, sizeof(c->installed_privileges)) ||
		c->state_dir[0] != '/')
		return false;
	for (uint32_t i = 0; i < c->n_listen; i++)
		if (!is_text(c->listen[i], sizeof(c->listen[i])))
			return false;
	for (uint32_t i = 0; i < c->n_require; i++)
		if (!is_text(c->require[i], sizeof(c->require[i])))
			return false;
	if (c->n_installed > TOSD_EXT_INSTALLED)
		return false;
	for (uint32_t i = 0; i < c->n_installed; i++)
		if (!is_grant(&c->installed[i]))
			return false;
	for (uint32_t i = 0; i < c->n_ext; i++)
		if (!is_grant(&c->ext[i].grant) ||
			!is_text(c->ext[i].name, sizeof(c->ext[i].name)) ||
			!is_text(c->ext[i].path, sizeof(c->ext[i].path)) ||
			!is_text(c->ext[i].privileges, sizeof(c->ext[i].privileges)))
			return false;
	if (c->n_actions > TOSD_ACTIONS_MAX)
		return false;
	for (uint32_t i = 0; i < c->n_actions; i++)
		if (action_check(&c->action[i], NULL) < 0)
			return false;
	return true;
}

_Noreturn void checker_run(struct tosd *t, int table_fd, int text_fd, int log_fd, int status_fd)
{
	char *argv[] = { "tos-kernel", "--check-config", "-c",
		(char *)(uintptr_t)t->config_path, NULL };
	struct sandbox_plan plan = { .kind = SANDBOX_CHECK,
		.host = &t->host,
		.filter = t->host.seccomp ? &t->filter[SANDBOX_CHECK] : NULL,
		.uid = (uid_t)-1,
		.address_bytes = (uint64_t)1 << 30,
		.cpu_s = CHECK_MS / 1000,
		.null_fd = t->null_fd,
		.out_fd = text_fd,
		.log_fd = log_fd,
		.socket_fd = table_fd,
		.library_fd = -1,
		.program_fd = t->kernel.fd,
		.status_fd = status_fd,
		.gate_fd = -1,
		.argv = argv,
		.envp = kernel_environment() };

	sandbox_run(&plan);
}

static int run(struct tosd *t, struct answer a[2], int *status, struct errmsg *em)
{
	int table[2], text[2], report[2], rc;
	pid_t pid;

	if (pipe2(table, O_CLOEXEC) < 0 || pipe2(text, O_CLOEXEC) < 0 ||
		pipe2(report, O_CLOEXEC) < 0)
		return err_errno(em, "cannot make a pipe");
	pid = fork();
	if (pid == 0)
		checker_run(t, table[1], text[1], STDERR_FILENO, report[1]);
	mem_close(table[1]);
	mem_close(text[1]);
	mem_close(report[1]);
	a[0].fd = table[0];
	a[1].fd = text[0];
	rc = pid < 0 ? err_errno(em, "cannot fork") : exec_wait(report[0], em);
	if (rc == 0)
		rc = collect(a, em);
	if (rc < 0 && pid > 0)
		kill(pid, SIGKILL);
	while (pid > 0 && waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	mem_close(report[0]);
	mem_close(table[0]);
	mem_close(text[0]);
	return rc;
}

int check_config(struct tosd *t, struct errmsg *em)
{
	struct answer a[2] = { { -1, BUF_MAX(2 * sizeof(struct tosd_config)), false },
		{ -1, BUF_MAX(TEXT_BYTES), false } };
	int status = 0;
	int rc = run(t, a, &status, em);

	if (rc == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		rc = err_set(em, ERR_CONFIG, "the configuration in %s cannot be used",
			t->config_path);
	if (rc == 0 && a[0].bytes.len != sizeof(t->config))
		rc = err_set(em, ERR_VERSION,
			"tos-kernel and tosd are of different builds (%s)", t->kernel.path);
	if (rc == 0) {
		memcpy(&t->config, a[0].bytes.data, sizeof(t->config));
		if (!check_table(&t->config))
			rc = err_set(em, ERR_VERSION,
				"tos-kernel and tosd are of different builds (%s)",
				t->kernel.path);
	}
	if (rc == 0)
		t->config_text = mem_strdup(buf_cstr(&a[1].bytes));
	buf_fini(&a[0].bytes);
	buf_fini(&a[1].bytes);
	return rc;
}
