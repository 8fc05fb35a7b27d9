/* tos doctor: what this host offers, with a kernel or without */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/where.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/domain.h"

#define RELEASED 1760000000 /* an earlier clock is wrong for sure */
#define DISK_LOW ((uint64_t)256 << 20)

enum grade { GOOD, LESS, BAD };

static void finding(struct tos_value *list, const char *where, const char *check, enum grade g,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void finding(struct tos_value *list, const char *where, const char *check, enum grade g,
	const char *fmt, ...)
{
	static const char *const words[] = { "ok", "degraded", "failed" };
	struct tos_value *v = map_of("where", tos_text(where));
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tos_set(v, "check", tos_text(check));
	tos_set(v, "state", tos_text(words[g]));
	tos_set(v, "text", tos_text(text));
	tos_push(list, v);
}

/* ---- this host */

static void check_programs(struct tos_value *list)
{
	static const char *const programs[] = { "tosd", "tos-kernel", "tos-vm", "tos-ext" };
	static const char *const extensions[] = { "echo", "mobility", "spawner", "messenger",
		"directory", "monitor" };
	char path[4096];

	for (size_t i = 0; i < ARRAY_LEN(programs); i++)
		if (where_program(programs[i], path, sizeof(path)) < 0)
			finding(list, "host", programs[i], BAD,
				"not found beside this program; install TOS again");
		else
			finding(list, "host", programs[i], access(path, X_OK) == 0 ? GOOD : BAD,
				"%s", path);
	for (size_t i = 0; i < ARRAY_LEN(extensions); i++)
		if (where_extension(extensions[i], path, sizeof(path)) < 0)
			finding(list, "host", extensions[i], BAD,
				"extension not found; install TOS again");
}

/* Whether it works is only known by doing it, in a child of ours. */
static void check_userns(struct tos_value *list)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER) < 0 ? errno & 0x7f : 0);
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		finding(list, "host", "user-namespaces", LESS, "cannot be tried");
	else if (WEXITSTATUS(status) == 0)
		finding(list, "host", "user-namespaces", GOOD, "allowed");
	else
		finding(list, "host", "user-namespaces", LESS,
			"%s; carriers run at level reduced. Allow them with "
			"sysctl kernel.unprivileged_userns_clone=1 or "
			"user.max_user_namespaces, or the container's profile",
			strerror(WEXITSTATUS(status)));
}

static void check_seccomp(struct tos_value *list)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
		finding(list, "host", "seccomp", GOOD, "available");
	else
		finding(list, "host", "seccomp", BAD, "%s; carriers don't run without it",
			strerror(errno));
}

static void check_landlock(struct tos_value *list)
{
	long abi =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (abi > 0)
		finding(list, "host", "landlock", GOOD, "version %ld", abi);
	else
		finding(list, "host", "landlock", LESS, "%s", strerror(errno));
}

static void check_clock(struct tos_value *list)
{
	char when[CLOCK_TEXT_BYTES];
	int64_t now = clock_wall_ms();

	clock_text(now, when);
	if (now / 1000 < RELEASED)
		finding(list, "host", "clock", BAD,
			"%s is in the past; certificates are not valid yet. Set the clock",
			when);
	else
		finding(list, "host", "clock", GOOD, "%s", when);
}

/* ---- this TOS_HOME */

static void check_disk(struct tos_value *list, const struct home *h)
{
	struct statvfs s;
	uint64_t free_bytes;

	if (statvfs(h->path, &s) < 0)
		return;
	free_bytes = (uint64_t)s.f_bavail * s.f_frsize;
	finding(list, "home", "disk", free_bytes < DISK_LOW ? BAD : GOOD, "%.1f GiB free%s",
		(double)free_bytes / (1 << 30),
		free_bytes < DISK_LOW ? "; kernels admit nothing new when it is full" : "");
	if (access(h->path, W_OK) < 0)
		finding(list, "home", "writable", BAD, "%s: %s", h->path, strerror(errno));
}

static void check_root_key(struct tos_value *list, const struct home *h)
{
	char path[HOME_PATH_MAX];
	struct stat st;

	if (!domain_has_root(h)) {
		finding(list, "home", "root-key", GOOD, "not here");
		return;
	}
	if (path_join(path, sizeof(path), NULL, h->path, "ca", "root.key", NULL) < 0 ||
		stat(path, &st) < 0)
		return;
	if (st.st_mode & 077)
		finding(list, "home", "root-key", BAD, "%s can be read by others; chmod 600 it",
			path);
	else
		finding(list, "home", "root-key", GOOD, "%s", path);
}

static void check_principals(struct tos_value *list, const struct home *h)
{
	struct tos_value *all = NULL;
	char now[CLOCK_TEXT_BYTES], soon[CLOCK_TEXT_BYTES];

	clock_text(clock_wall_ms(), now);
	clock_text(clock_wall_ms() + 30 * (int64_t)86400000, soon);
	if (domain_principals(h, &all, NULL) < 0)
		return;
	for (size_t i = 0; i < tos_len(all); i++) {
		const struct tos_value *p = tos_at(all, i);
		const char *name = tos_get_text(p, "name", "?"),
			   *expires = tos_get_text(p, "expires", "");
		bool gone = strcmp(expires, now) < 0, near = strcmp(expires, soon) < 0;

		if (tos_get_bool(p, "revoked", false))
			finding(list, "home", name, LESS, "principal, revoked");
		else
			finding(list, "home", name,
				gone   ? BAD
				: near ? LESS
				       : GOOD,
				"principal, expire%s %.10s", gone ? "d" : "s", expires);
	}
	tos_value_free(all);
}

static bool can_bind(const char *listen, char why[64])
{
	const char *colon = strrchr(listen, ':');
	struct sockaddr_in sa = { .sin_family = AF_INET };
	char host[64];
	int fd, one = 1, rc;

	if (!colon ||
		snprintf(host, sizeof(host), "%.*s", (int)(colon - listen), listen) >=
			(int)sizeof(host) ||
		inet_pton(AF_INET, host, &sa.sin_addr) != 1)
		return true;
	sa.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return true;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	rc = bind(fd, (const struct sockaddr *)&sa, sizeof(sa));
	rc = rc ? rc : listen && *listen ? (int)syscall(SYS_listen, fd, 1) : 0;
	snprintf(why, 64, "%s", strerror(errno));
	close(fd);
	return rc == 0;
}

static void check_stopped(struct tos_value *list, const struct home *h, const char *kernel)
{
	char listen[128] = "", why[64] = "";

	if (kernel_conf_listen(h, kernel, listen) < 0)
		finding(list, kernel, "configuration", BAD,
			"%s/kernels/%s/tosd.conf: no listen = {...}; tosd -t -c "
			"checks it",
			h->path, kernel);
	else if (!can_bind(listen, why))
		finding(list, kernel, "port", BAD,
			"%s: %s; end what uses it, or change tosd.conf", listen, why);
	else
		finding(list, kernel, "port", GOOD, "%s is free", listen);
}

static void check_running(struct tos_value *list, const char *kernel, const struct tos_value *v)
{
	const struct tos_value *layers = tos_get(v, "layers"), *checks = tos_get(v, "checks");
	const char *level = tos_get_text(v, "level", "?");
	size_t on = 0;

	for (size_t i = 0; i < tos_len(layers); i++)
		on += strcmp(tos_get_text(tos_at(layers, i), "state", ""), "on") == 0;
	finding(list, kernel, "sandbox", strcmp(level, "full") == 0 ? GOOD : LESS,
		"level %s, %zu of %zu layers on", level, on, tos_len(layers));
	for (size_t i = 0; i < tos_len(layers); i++) {
		const struct tos_value *l = tos_at(layers, i);
		const char *state = tos_get_text(l, "state", "?"),
			   *reason = tos_get_text(l, "reason", "");

		finding(list, kernel, tos_get_text(l, "name", "?"),
			strcmp(state, "on") == 0 ? GOOD : LESS, "%s", *reason ? reason : state);
		tos_set(tos_at_mut(list, tos_len(list) - 1), "layer", tos_bool(true));
	}
	for (size_t i = 0; i < tos_len(checks); i++) {
		const struct tos_value *c = tos_at(checks, i);

		finding(list, kernel, tos_get_text(c, "name", "?"),
			tos_get_bool(c, "ok", false) ? GOOD : BAD, "%s",
			tos_get_text(c, "text", ""));
	}
}

/* --kernel of another machine. */
static void check_remote(struct cli *cli, struct tos_value *list)
{
	struct tos_value *v = NULL;
	int rc = cli_ask(cli, NULL, "DOCTOR", NULL, &v);

	if (rc == 0)
		check_running(list, cli->kernel, v);
	else
		finding(list, cli->kernel, "kernel", BAD, "%s", err_show(rc, &cli->em));
	tos_value_free(v);
}

static void check_kernels(struct cli *cli, struct tos_value *list, const struct home *h)
{
	struct names all = { NULL, 0 };
	bool found = !cli->kernel;

	if (home_kernels(h, &all) < 0)
		return;
	for (size_t i = 0; i < all.n; i++) {
		struct tos_value *v = NULL;
		int rc;

		if (cli->kernel && strcmp(cli->kernel, all.v[i]) != 0)
			continue;
		found = true;
		cli_disconnect(cli);
		rc = tos_connect(cli->home, all.v[i], cli_timeout(cli, 5000), &cli->connection,
			cli_err(cli));
		if (rc == 0) {
			rc = cli_ask(cli, NULL, "DOCTOR", NULL, &v);
			if (rc == 0)
				check_running(list, all.v[i], v);
			else
				finding(list, all.v[i], "kernel", BAD, "%s",
					err_show(rc, &cli->em));
		} else if (rc == ERR_UNREACHABLE && keeper_pid(h, all.v[i]))
			finding(list, all.v[i], "kernel", BAD,
				"its keeper runs but it does not answer; see kernels/%s/log",
				all.v[i]);
		else if (rc == ERR_UNREACHABLE)
			check_stopped(list, h, all.v[i]);
		else
			finding(list, all.v[i], "kernel", BAD, "%s", err_show(rc, &cli->em));
		tos_value_free(v);
	}
	names_fini(&all);
	if (!found)
		check_remote(cli, list);
}

/* Layers that are on are only counted, unless all is asked for. */
static void print_findings(const struct tos_value *list, bool all)
{
	struct tos_value *rows = tos_array();

	for (size_t i = 0; i < tos_len(list); i++) {
		const struct tos_value *f = tos_at(list, i);

		if (all || !tos_get_bool(f, "layer", false) ||
			strcmp(tos_get_text(f, "state", ""), "ok") != 0)
			tos_push(rows, tos_value_copy(f));
	}
	table_print(rows, "where:WHERE check:CHECK state:STATE text:FINDING", stdout);
	tos_value_free(rows);
}

static int run_doctor(struct cli *cli)
{
	struct tos_value *list = tos_array();
	struct home h;
	int bad = 0, rc;

	check_programs(list);
	check_userns(list);
	check_seccomp(list);
	check_landlock(list);
	check_clock(list);
	rc = home_open(cli->home, &h, &cli->em);
	if (rc == 0) {
		check_disk(list, &h);
		check_root_key(list, &h);
		check_principals(list, &h);
		check_kernels(cli, list, &h);
	} else
		finding(list, "home", "domain", rc == ERR_NOT_FOUND ? LESS : BAD, "%s",
			err_show(rc, &cli->em));
	for (size_t i = 0; i < tos_len(list); i++)
		bad += strcmp(tos_get_text(tos_at(list, i), "state", ""), "failed") == 0;
	if (cli->json)
		print_json(list);
	else
		print_findings(list, cli_option(cli, "all"));
	tos_value_free(list);
	if (!bad)
		return EXIT_DONE;
	err_set(&cli->em, ERR_STATE, "%d check%s failed; what to do stands beside", bad,
		bad == 1 ? "" : "s");
	return cli_fail(cli, ERR_STATE);
}

const struct command command_doctor = {
	.name = "doctor",
	.args = "",
	.summary = "Check this host, this TOS_HOME and its kernels",
	.about = "Checks what a kernel needs of this host: programs, user namespaces, seccomp, "
		 "Landlock, the clock; then disk, keys "
		 "and certificates of this TOS_HOME; then each kernel: the layers of its "
		 "sandbox if it runs, its port if "
		 "it does not. Works without a domain too. The exit code is 1 if a check "
		 "failed; degraded means that "
		 "things work with less protection.",
	.examples = "tos doctor\tEverything\n"
		    "tos doctor --all --kernel host1\tEach layer of a kernel's sandbox\n",
	.run = run_doctor,
	.options = { { "all", 'a', NULL,
		"also the layers of a sandbox that are as they should be" } },
};
