/*
 * The keeper: a small tos process that stays behind 'tos up', one a kernel. It starts tosd,
 * starts it again with back-off when it ends, and ends it on SIGTERM. The lock on
 * kernels/NAME/keeper.pid says that it lives; the number in there, who.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/where.h"
#include "cli/cli.h"
#include "cli/commands.h"

#define BACK_OFF_FIRST_MS 100
#define BACK_OFF_MOST_MS  10000
#define LIVED_MS          5000 /* one that lived that long had started well */
#define EARLY_DEATHS      3    /* of one that never did: give up */
#define LOG_BYTES_MAX     (16 << 20)

static int keeper_file(const struct home *h, const char *kernel, const char *file,
	char out[HOME_PATH_MAX], struct errmsg *em)
{
	return path_join(out, HOME_PATH_MAX, em, h->path, "kernels", kernel, file, NULL);
}

int keeper_pid(const struct home *h, const char *kernel)
{
	char path[HOME_PATH_MAX], text[16] = "";
	AUTOCLOSE int fd = -1;
	int pid;

	if (keeper_file(h, kernel, "keeper.pid", path, NULL) < 0)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK)
		return 0; /* a lock that we can have is held by no keeper; closing gives it back
			   */
	if (read(fd, text, sizeof(text) - 1) <= 0)
		return 0;
	pid = atoi(text);
	return pid > 1 ? pid : 0;
}

/* Behind the time stands the level. */
static bool is_info(const char *line, size_t n)
{
	return n > 31 && memcmp(line + 24, " info ", 6) == 0;
}

/* The last lines of f; without info those of it are left out. */
static void from_end(FILE *f, size_t lines, bool info, FILE *out)
{
	char block[8192];
	size_t n, at, seen = 0;
	long end;

	if (fseek(f, 0, SEEK_END) < 0 || (end = ftell(f)) < 0)
		return;
	n = end > (long)sizeof(block) ? sizeof(block) : (size_t)end;
	if (fseek(f, -(long)n, SEEK_END) < 0)
		return;
	n = fread(block, 1, n, f);
	for (at = n; at > 0; at--)
		if (block[at - 1] == '\n' && at < n && (info || !is_info(block + at, n - at)) &&
			++seen == lines)
			break;
	while (at < n) {
		const char *end_of = memchr(block + at, '\n', n - at);
		size_t line = end_of ? (size_t)(end_of - block) + 1 - at : n - at;

		if (info || !is_info(block + at, line))
			fwrite(block + at, 1, line, out);
		at += line;
	}
}

void keeper_log_tail(
	const struct home *h, const char *kernel, size_t lines, bool info, FILE *out)
{
	char path[HOME_PATH_MAX];
	FILE *f;

	if (keeper_file(h, kernel, "log", path, NULL) < 0)
		return;
	f = fopen(path, "re");
	if (!f)
		return;
	from_end(f, lines, info, out);
	fclose(f);
}

/* ---- starting one */

int keeper_start(const struct home *h, const char *kernel, struct errmsg *em)
{
	char self[HOME_PATH_MAX], dir[HOME_PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int status = 0, rc = path_join(dir, sizeof(dir), em, h->path, "kernels", kernel, NULL);
	pid_t pid;

	if (rc < 0)
		return rc;
	if (n <= 0)
		return err_errno(em, "cannot find this program");
	if (access(dir, W_OK) < 0 && errno == EACCES)
		return err_set(em, ERR_DENIED,
			"this user may not write in %s: its owner starts %s", dir, kernel);
	self[n] = 0;
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return err_errno(em, "cannot start a process");
	if (pid == 0) { /* twice, so that it is nobody's child */
		pid = fork();
		if (pid == 0) {
			setsid();
			execl(self, "tos", "keeper", kernel, "--home", h->path, (char *)NULL);
			_exit(127);
		}
		_exit(pid < 0);
	}
	if (waitpid(pid, &status, 0) < 0 || status != 0)
		return err_set(em, ERR_IO, "cannot start the keeper of %s", kernel);
	return 0;
}

/* ---- being one */

struct keeper {
	const char *name;
	char tosd[HOME_PATH_MAX], conf[HOME_PATH_MAX], log[HOME_PATH_MAX];
	bool lived;
	unsigned early;
	int64_t back_off_ms;
};

/* Hold the lock for good; the descriptor is never closed. */
static int hold_lock(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	char text[16];
	int n = snprintf(text, sizeof(text), "%d\n", getpid());

	if (fd < 0)
		return ERR_IO;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		close(fd);
		return ERR_EXISTS;
	}
	if (ftruncate(fd, 0) < 0 || write(fd, text, (size_t)n) != n)
		return ERR_IO;
	return 0;
}

static int open_log(const struct keeper *k)
{
	char old[HOME_PATH_MAX + 4];
	struct stat st;

	if (stat(k->log, &st) == 0 && st.st_size > LOG_BYTES_MAX) {
		snprintf(old, sizeof(old), "%s.1", k->log);
		rename(k->log, old);
	}
	return open(k->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

static void say(const struct keeper *k, const char *what, long number)
{
	char when[CLOCK_TEXT_BYTES];
	FILE *f = fopen(k->log, "ae");

	if (!f)
		return;
	fprintf(f, "%s notice %s keeper: %s %ld\n", clock_text(clock_wall_ms(), when), k->name,
		what, number);
	fclose(f);
}

static pid_t start_tosd(const struct keeper *k, const sigset_t *all)
{
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid;
	int null = open("/dev/null", O_RDONLY), log = open_log(k);

	dup2(null, 0);
	dup2(log, 1);
	dup2(log, 2);
	closefrom(3);
	sigprocmask(SIG_UNBLOCK, all, NULL);
	/* Without its keeper nobody would start it again or end it: it goes too. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	execl(k->tosd, "tosd", "-c", k->conf, (char *)NULL);
	_exit(127);
}

/* Wait for the end of tosd or for SIGTERM; true when we have been told to end. */
static bool wait_signal(const sigset_t *all, int64_t limit_ms)
{
	struct timespec t = { limit_ms / 1000, (limit_ms % 1000) * 1000000 };
	int sig = limit_ms < 0 ? sigwaitinfo(all, NULL) : sigtimedwait(all, NULL, &t);

	return sig == SIGTERM || sig == SIGINT;
}

static void stop_tosd(const struct keeper *k, pid_t pid)
{
	say(k, "stopping tosd, process", pid);
	kill(pid, SIGTERM);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* tosd has ended: when to try again, or -1 for never. */
static int64_t after_death(struct keeper *k, int64_t lived_ms, int status)
{
	say(k, WIFSIGNALED(status) ? "tosd was ended by signal" : "tosd ended with status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (lived_ms >= LIVED_MS) {
		k->lived = true;
		k->back_off_ms = BACK_OFF_FIRST_MS;
	} else if (!k->lived && !WIFSIGNALED(status) && ++k->early >= EARLY_DEATHS) {
		say(k, "giving up, starts that failed:", (long)k->early);
		return -1;
	}
	int64_t now = k->back_off_ms;

	k->back_off_ms = now * 2 > BACK_OFF_MOST_MS ? BACK_OFF_MOST_MS : now * 2;
	return now;
}

static int keep(struct keeper *k, const sigset_t *all)
{
	for (;;) {
		int64_t began = clock_ms(), pause;
		pid_t pid = start_tosd(k, all);
		int status = 0;

		if (pid > 0) {
			say(k, "started tosd, process", pid);
			while (waitpid(pid, &status, WNOHANG) == 0)
				if (wait_signal(all, -1)) {
					stop_tosd(k, pid);
					return EXIT_DONE;
				}
		}
		pause = after_death(k, clock_ms() - began, status);
		if (pause < 0)
			return EXIT_FAILED;
		if (wait_signal(all, pause))
			return EXIT_DONE;
	}
}

int keeper_run(struct cli *cli)
{
	struct keeper k = { .name = cli->args.word[0], .back_off_ms = BACK_OFF_FIRST_MS };
	char pid_file[HOME_PATH_MAX];
	struct home h;
	sigset_t all;
	int null, rc = home_open(cli->home, &h, &cli->em);

	rc = rc ? rc : keeper_file(&h, k.name, "keeper.pid", pid_file, &cli->em);
	rc = rc ? rc : keeper_file(&h, k.name, "tosd.conf", k.conf, &cli->em);
	rc = rc ? rc : keeper_file(&h, k.name, "log", k.log, &cli->em);
	if (rc == 0 && where_program("tosd", k.tosd, sizeof(k.tosd)) < 0)
		rc = err_set(
			&cli->em, ERR_NOT_FOUND, "tosd is not installed beside this program");
	if (rc < 0)
		return cli_fail(cli, rc);
	closefrom(3);
	rc = hold_lock(pid_file);
	if (rc < 0)
		return rc == ERR_EXISTS ? EXIT_DONE
					: EXIT_FAILED; /* somebody keeps it already */
	null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	if (chdir("/") < 0)
		return EXIT_FAILED;
	sigemptyset(&all);
	sigaddset(&all, SIGTERM);
	sigaddset(&all, SIGINT);
	sigaddset(&all, SIGCHLD);
	sigprocmask(SIG_BLOCK, &all, NULL);
	signal(SIGHUP, SIG_IGN);
	return keep(&k, &all);
}

const struct command command_keeper = {
	.name = "keeper",
	.args = "KERNEL",
	.summary = "Keep one kernel up; started by tos up",
	.about = "Starts tosd for this kernel and starts it again when it ends, until SIGTERM.",
	.run = keeper_run,
	.min_args = 1,
	.max_args = 1,
	.hidden = true,
};
