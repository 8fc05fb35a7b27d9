/*
 * tos stop --all and tos resume --all: the emergency brake of a TOS_HOME. It asks nobody: tosd goes
 * first, then every process of it, by what /proc says, and a mark in each state directory keeps
 * them from coming back, whoever would start them. Works when nothing of ours answers any more.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"

#define MARK          "stopped"
#define RESUMED       "resumed"
#define PROCESSES_MAX 65536
#define ROUND_MS      20

struct process {
	int pid, parent;
	bool ours, tosd; /* of this TOS_HOME; tosd or the keeper that would start it again */
};

struct table {
	struct process *p;
	size_t n;
};

/* Arguments with NULs between them; "" where the process is gone or another's. */
static size_t read_small(int pid, const char *what, char *out, size_t cap)
{
	char path[64];
	AUTOCLOSE int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, out, cap - 1);
	out[n > 0 ? n : 0] = 0;
	return n > 0 ? (size_t)n : 0;
}

static int parent_of(int pid)
{
	char stat[512], *end;

	read_small(pid, "stat", stat, sizeof(stat));
	end = strrchr(stat, ')');
	/* ") S PPID": a zombie has ended */
	return end && end[1] && end[2] != 'Z' ? atoi(end + 3) : 0;
}

/* "tosd -c HOME/kernels/NAME/tosd.conf", "tos keeper NAME --home HOME" */
static bool is_root_of_home(int pid, const char *home)
{
	char args[4096], kernels[HOME_PATH_MAX + 16];
	size_t n = read_small(pid, "cmdline", args, sizeof(args)), len;
	bool tosd = false, keeper = false, below = false, exactly = false;

	len = (size_t)snprintf(kernels, sizeof(kernels), "%s/kernels/", home);
	for (size_t at = 0; at < n; at += strlen(args + at) + 1) {
		const char *a = args + at, *base = strrchr(a, '/');

		if (at == 0)
			tosd = strcmp(base ? base + 1 : a, "tosd") == 0;
		keeper = keeper || strcmp(a, "keeper") == 0;
		below = below || strncmp(a, kernels, len) == 0;
		exactly = exactly || strcmp(a, home) == 0;
	}
	return (tosd && below) || (keeper && exactly);
}

static struct process *find(struct table *t, int pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->p[i].pid == pid)
			return &t->p[i];
	return NULL;
}

/* Those processes, and whatever descends from them. */
static int table_read(struct table *t, const char *home, struct errmsg *em)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	bool more = true;

	t->n = 0;
	if (!d)
		return err_errno(em, "/proc");
	while ((e = readdir(d)) && t->n < PROCESSES_MAX) {
		int pid = atoi(e->d_name);
		struct process *p = &t->p[t->n];

		if (pid <= 1 || pid == getpid())
			continue;
		*p = (struct process){ .pid = pid, .parent = parent_of(pid) };
		if (!p->parent)
			continue;
		p->ours = p->tosd = is_root_of_home(pid, home);
		t->n++;
	}
	closedir(d);
	while (more) {
		more = false;
		for (size_t i = 0; i < t->n; i++) {
			struct process *up = t->p[i].ours ? NULL : find(t, t->p[i].parent);

			if (up && up->ours)
				t->p[i].ours = more = true;
		}
	}
	return 0;
}

/* The number may be somebody else's by now: what is signalled is looked at once more. */
static bool end_process(const struct process *p)
{
	AUTOCLOSE int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);

	return fd >= 0 && parent_of(p->pid) != 0 &&
	       syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0;
}

static size_t end_round(struct table *t, bool tosd_only)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++)
		if (t->p[i].ours && (t->p[i].tosd || !tosd_only))
			n += end_process(&t->p[i]);
	return n;
}

static size_t count(const struct table *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++)
		n += t->p[i].ours;
	return n;
}

/* tosd and keepers first, so that nothing is started again; then, until none is left, the rest. */
static int end_all(struct cli *cli, const char *home, size_t *ended)
{
	struct table t = { mem_zero(PROCESSES_MAX * sizeof(*t.p)), 0 };
	int64_t deadline = clock_ms() + cli_timeout(cli, 10000);
	int rc = table_read(&t, home, &cli->em);

	*ended = count(&t);
	if (rc == 0)
		end_round(&t, true);
	while (rc == 0) {
		end_round(&t, false);
		usleep(ROUND_MS * 1000);
		rc = table_read(&t, home, &cli->em);
		if (rc < 0 || count(&t) == 0)
			break;
		if (clock_ms() >= deadline)
			rc = err_set(&cli->em, ERR_TIMEOUT,
				"%zu processes are still there; are they another user's?",
				count(&t));
	}
	free(t.p);
	return rc;
}

static int mark_path(struct cli *cli, const struct home *h, const char *kernel,
	const char *what, char out[HOME_PATH_MAX])
{
	return path_join(out, HOME_PATH_MAX, &cli->em, h->path, "kernels", kernel, what, NULL);
}

static int mark_one(struct cli *cli, const struct home *h, const char *kernel)
{
	char path[HOME_PATH_MAX];
	AUTOCLOSE int fd = -1;
	int rc = mark_path(cli, h, kernel, MARK, path);

	if (rc < 0)
		return rc;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	return fd < 0 ? err_errno(&cli->em, "%s", path) : 0;
}

static int run_stop(struct cli *cli)
{
	struct names all = { NULL, 0 };
	struct tos_value *v;
	struct home h;
	size_t ended = 0;
	int rc, unmarked = 0;

	if (!cli_option(cli, "all"))
		return cli_usage(cli,
			"say --all: it ends every kernel and carrier of this TOS_HOME; for one kernel there is tos down");
	rc = home_open(cli->home, &h, &cli->em);
	rc = rc ? rc : home_kernels(&h, &all);
	/* A mark that can't be made (a full disk) is said, and keeps nothing from being ended. */
	for (size_t i = 0; rc == 0 && i < all.n; i++)
		if (mark_one(cli, &h, all.v[i]) < 0) {
			cli_fail(cli, ERR_IO);
			unmarked++;
		}
	rc = rc ? rc : end_all(cli, h.path, &ended);
	v = map_of("processes", tos_int((int64_t)ended));
	tos_set(v, "kernels", tos_int((int64_t)all.n));
	tos_set(v, "marked", tos_int((int64_t)all.n - unmarked));
	if (rc == 0 && cli->json)
		print_json(v);
	else if (rc == 0)
		printf("%zu processes of %s ended; nothing of it starts again before 'tos resume --all'\n",
			ended, h.path);
	tos_value_free(v);
	names_fini(&all);
	return rc < 0 ? cli_fail(cli, rc) : unmarked ? EXIT_FAILED : EXIT_DONE;
}

bool stop_marked(const struct home *h, const char *kernel)
{
	char path[HOME_PATH_MAX];

	return path_join(path, sizeof(path), NULL, h->path, "kernels", kernel, MARK, NULL) ==
		       0 &&
	       access(path, F_OK) == 0;
}

/* tos resume --all: the mark becomes one that the kernel puts into its audit chain. */
int stop_resume(struct cli *cli)
{
	struct names all = { NULL, 0 };
	struct home h;
	size_t n = 0;
	int rc = home_open(cli->home, &h, &cli->em);

	rc = rc ? rc : home_kernels(&h, &all);
	for (size_t i = 0; rc == 0 && i < all.n; i++) {
		char from[HOME_PATH_MAX], to[HOME_PATH_MAX];

		rc = mark_path(cli, &h, all.v[i], MARK, from);
		rc = rc ? rc : mark_path(cli, &h, all.v[i], RESUMED, to);
		if (rc == 0 && rename(from, to) == 0)
			n++;
		else if (rc == 0 && errno != ENOENT)
			rc = err_errno(&cli->em, "%s", from);
	}
	if (rc == 0 && cli->json) {
		struct tos_value *v = map_of("kernels", tos_int((int64_t)n));

		print_json(v);
		tos_value_free(v);
	} else if (rc == 0) {
		printf("%zu kernels may run again\n", n);
		if (n)
			puts("next: tos up");
	}
	names_fini(&all);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_stop = {
	.name = "stop",
	.args = "",
	.summary = "End everything of this TOS_HOME at once, and keep it from coming back",
	.about =
		"The emergency brake. tos stop --all asks nobody and waits for nobody: it ends tosd first, then every process "
		"of this TOS_HOME, and leaves a mark with which nothing of it starts again, neither by tos up nor by "
		"systemd, until tos resume --all. It works with a full disk, without a network, and when the kernels "
		"hang. Carriers stay in the journal as after a crash. For an orderly end there is tos down.",
	.examples = "tos stop --all\tEverything here, now\n"
		    "tos resume --all\tAnd then tos up\n",
	.run = run_stop,
	.options = { { "all", 0, NULL, "every kernel of this TOS_HOME; must be said" } },
};
