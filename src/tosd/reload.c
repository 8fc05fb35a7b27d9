/*
 * The configuration is checked while the kernel runs, by the same sandboxed tos-kernel
 * --check-config as at the start, but without waiting for it: supervise.c watches its pidfd. tosd
 * itself takes nothing from it but whether the file is good, and the named actions; tos-kernel reads
 * it again.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/ipc.h"
#include "tosd/tosd.h"

#define CHECK_MS   10000
#define PIPE_BYTES 65536

/* It is read when the checker has ended, so all of it must fit into a pipe. */
_Static_assert(sizeof(struct tosd_config) <= PIPE_BYTES, "the table fits into a pipe");

static struct {
	pid_t pid;
	int pidfd, said; /* what it writes to stderr */
	int table;       /* and the table */
	int64_t deadline_ms;
	bool again; /* asked for while one was under way */
	bool due;   /* tos-kernel is to hear of it */
	struct tosd_reloaded news;
} check = { .pidfd = -1, .said = -1, .table = -1 };

static void done(int rc, const char *text)
{
	check.news = (struct tosd_reloaded){
		.head = { TOSD_MSG_VERSION, TOSD_RELOADED, sizeof(check.news) }, .rc = rc
	};
	snprintf(check.news.text, sizeof(check.news.text), "%s", text);
	check.due = true;
	if (rc < 0)
		log_error("the configuration is broken; it stays as it is",
			KV_STR("reason", check.news.text));
	else
		log_notice("the configuration was checked");
}

int reload_begin(struct tosd *t)
{
	int said[2], table[2];

	if (check.pid) {
		check.again = true;
		return -1;
	}
	if (pipe2(said, O_CLOEXEC | O_NONBLOCK) < 0) {
		done(ERR_IO, strerror(errno));
		return -1;
	}
	if (pipe2(table, O_CLOEXEC) < 0) {
		mem_close(said[0]);
		mem_close(said[1]);
		done(ERR_IO, strerror(errno));
		return -1;
	}
	fcntl(table[0], F_SETFL, O_NONBLOCK);
	check.pid = pidfd_fork(&check.pidfd);
	if (check.pid == 0)
		checker_run(t, table[1], t->null_fd, said[1], said[1]);
	mem_close(said[1]);
	mem_close(table[1]);
	if (check.pid < 0) {
		mem_close(said[0]);
		mem_close(table[0]);
		check.pid = 0;
		done(ERR_IO, "cannot start tos-kernel --check-config");
		return -1;
	}
	check.said = said[0];
	check.table = table[0];
	check.deadline_ms = clock_ms() + CHECK_MS;
	return check.pidfd;
}

/* The last line that it said: before it there may be warnings. */
static void read_said(char *out, size_t cap)
{
	char bytes[1024];
	ssize_t n = read(check.said, bytes, sizeof(bytes) - 1);
	char *line = bytes;

	bytes[n > 0 ? n : 0] = 0;
	for (char *p; (p = strchr(line, '\n')) && p[1];)
		line = p + 1;
	line[strcspn(line, "\n")] = 0;
	snprintf(out, cap, "%s", line);
}

/* All else that is in the table is fixed since the start. */
static bool table_take(struct tosd *t)
{
	static struct tosd_config fresh;
	size_t n = 0;
	ssize_t got;

	while (n < sizeof(fresh) &&
		(got = read(check.table, (char *)&fresh + n, sizeof(fresh) - n)) > 0)
		n += (size_t)got;
	if (n != sizeof(fresh) || !check_table(&fresh))
		return false;
	t->config.n_actions = fresh.n_actions;
	memcpy(t->config.action, fresh.action, sizeof(fresh.action));
	return true;
}

bool reload_ended(struct tosd *t, int epoll)
{
	char text[TOSD_TEXT_BYTES];
	bool again = check.again, good;
	int status;

	if (!check.pid || waitpid(check.pid, &status, WNOHANG) != check.pid)
		return false;
	read_said(text, sizeof(text));
	good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (good && !again && !table_take(t)) {
		good = false;
		snprintf(text, sizeof(text), "tos-kernel --check-config wrote no table");
	}
	mem_close(check.said);
	mem_close(check.table);
	/* a launcher just being made may hold a copy, with which it would go on being watched */
	epoll_ctl(epoll, EPOLL_CTL_DEL, check.pidfd, NULL);
	mem_close(check.pidfd);
	check.pid = 0;
	check.said = check.table = check.pidfd = -1;
	check.again = false;
	if (again)
		return true; /* the file may have changed since */
	if (good)
		done(0, "");
	else
		done(ERR_CONFIG, *text ? text : "tos-kernel --check-config died");
	return false;
}

pid_t reload_pid(void)
{
	return check.pid;
}

int64_t reload_deadline(void)
{
	return check.pid ? check.deadline_ms : INT64_MAX;
}

void reload_expire(int64_t now_ms)
{
	if (!check.pid || now_ms < check.deadline_ms)
		return;
	log_error("tos-kernel --check-config takes too long");
	check.deadline_ms = now_ms + CHECK_MS;
	kill(check.pid, SIGKILL);
}

bool reload_due(void)
{
	return check.due;
}

int reload_tell(int fd, struct errmsg *em)
{
	int rc;

	if (!check.due)
		return 0;
	rc = ipc_send(fd, &check.news, sizeof(check.news), NULL, 0, em);
	if (rc == 0)
		check.due = false;
	return rc;
}

void reload_forget(void)
{
	check.due = false;
}
