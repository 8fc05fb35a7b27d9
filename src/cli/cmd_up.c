/* tos up, tos down */
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/domain.h"

#define KERNELS_MOST 256
#define POLL_MS      50
#define DISK_FULL    65536 /* less room than that is none */

/* ---- up */

enum readiness { UNASKED, UNREADY, UNLINKED, READY };

struct kernel_up {
	const char *name;
	bool ours; /* started by this run */
	enum readiness state;
	char waits_for[256];
};

static void note(const struct cli *cli, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void note(const struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	(void)cli;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static int make_kernels(
	struct cli *cli, const struct home *h, unsigned n, const struct listen_at *where)
{
	int rc = 0;

	for (unsigned i = 0; i < n && rc == 0; i++) {
		char name[16], conf[HOME_PATH_MAX], listen[128] = "";

		snprintf(name, sizeof(name), "host%u", i);
		rc = path_join(conf, sizeof(conf), &cli->em, h->path, "kernels", name,
			"tosd.conf", NULL);
		if (rc < 0 || access(conf, F_OK) == 0)
			continue;
		rc = domain_kernel_add(h, name, i, where, &cli->em);
		if (rc == 0 && kernel_conf_listen(h, name, listen) == 0)
			note(cli, "made %s, listens on %s", name, listen);
	}
	return rc;
}

static bool linked_to(const struct tos_value *status, const char *name)
{
	const struct tos_value *linked = tos_get(status, "linked");

	for (size_t i = 0; i < tos_len(linked); i++)
		if (strcmp(tos_as_text(tos_at(linked, i), ""), name) == 0)
			return true;
	return false;
}

/* The registrar wants a link with everyone started here, the others one with the registrar. */
static void judge(struct kernel_up *k, const struct tos_value *status,
	const struct kernel_up *all, size_t n)
{
	const char *registrar = tos_get_text(status, "registrar", "");
	bool is_registrar = strcmp(registrar, k->name) == 0;

	k->state = READY;
	k->waits_for[0] = 0;
	if (!tos_get_bool(status, "ready", false)) {
		k->state = UNREADY;
		return;
	}
	if (!is_registrar && *registrar && !linked_to(status, registrar)) {
		k->state = UNLINKED;
		snprintf(k->waits_for, sizeof(k->waits_for), "%s", registrar);
	}
	for (size_t i = 0; is_registrar && i < n; i++)
		if (strcmp(all[i].name, k->name) != 0 && !linked_to(status, all[i].name)) {
			k->state = UNLINKED;
			snprintf(k->waits_for, sizeof(k->waits_for), "%s", all[i].name);
			return;
		}
}

static int ask_status(
	struct cli *cli, const struct home *h, const char *kernel, struct tos_value **out)
{
	struct tos_value *elements = tos_array(), *answer = NULL;
	struct tos_connection *c;
	int rc = tos_connect(h->path, kernel, 2000, &c, cli_err(cli));

	if (rc == 0) {
		rc = tos_push(elements, tos_map());
		rc = rc ? rc
			: tos_ask(c, "Control", "STATUS", elements, 2000, NULL, &answer,
				  cli_err(cli));
		tos_disconnect(c);
	}
	if (rc == 0)
		*out = tos_take_at(answer, 0);
	tos_value_free(answer);
	tos_value_free(elements);
	return rc;
}

static void ask_all(struct cli *cli, const struct home *h, struct kernel_up *all, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct tos_value *status = NULL;

		if (ask_status(cli, h, all[i].name, &status) == 0)
			judge(&all[i], status, all, n);
		else
			all[i].state = UNASKED;
		tos_value_free(status);
	}
}

static bool disk_full(const struct home *h)
{
	struct statvfs s;

	return statvfs(h->path, &s) == 0 && (uint64_t)s.f_bavail * s.f_frsize < DISK_FULL;
}

/* Which one is not ready, why, and what it said last. */
static int say_late(
	struct cli *cli, const struct home *h, const struct kernel_up *k, bool ended)
{
	note(cli, "--- %s/kernels/%s/log", h->path, k->name);
	keeper_log_tail(h, k->name, ended ? 4 : 8, !ended, stderr);
	note(cli, "---");
	/* Its log has no room for the reason either. */
	if (ended && disk_full(h))
		return err_set(&cli->em, ERR_STATE,
			"%s did not start: the disk of %s is full; free some space", k->name,
			h->path);
	if (ended)
		return err_set(&cli->em, ERR_STATE,
			"%s did not start; its log, above, says why", k->name);
	if (k->state == UNLINKED)
		return err_set(&cli->em, ERR_TIMEOUT, "%s runs, but has no link with %s",
			k->name, k->waits_for);
	return err_set(&cli->em, ERR_TIMEOUT,
		"%s was not ready in time; its log is above, 'tos doctor' "
		"looks further",
		k->name);
}

/* One that ended is the cause, whoever waits for it. */
static struct kernel_up *find_ended(const struct home *h, struct kernel_up *all, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (all[i].state == UNASKED && !keeper_pid(h, all[i].name))
			return &all[i];
	return NULL;
}

static int wait_ready(struct cli *cli, const struct home *h, struct kernel_up *all, size_t n)
{
	int64_t deadline = clock_ms() + cli_timeout(cli, 30000), told = clock_ms() + 2000;

	for (;;) {
		struct kernel_up *late = NULL, *ended;

		ask_all(cli, h, all, n);
		for (size_t i = n; i-- > 0;)
			if (all[i].state != READY)
				late = &all[i];
		if (!late)
			return 0;
		ended = clock_ms() > told - 1500 ? find_ended(h, all, n) : NULL;
		if (ended)
			return say_late(cli, h, ended, true);
		if (clock_ms() >= deadline)
			return say_late(cli, h, late, false);
		if (clock_ms() >= told) {
			note(cli,
				late->state == UNLINKED ? "waiting for the link of %s with %s"
							: "waiting for %s",
				late->name, late->waits_for);
			told += 5000;
		}
		usleep(POLL_MS * 1000);
	}
}

static int start_all(struct cli *cli, const struct home *h, struct kernel_up *all, size_t n)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		struct tos_value *status = NULL;

		if (keeper_pid(h, all[i].name))
			continue;
		if (ask_status(cli, h, all[i].name, &status) == 0) { /* systemd's, say */
			tos_value_free(status);
			continue;
		}
		all[i].ours = true;
		rc = keeper_start(h, all[i].name, &cli->em);
		if (rc == 0)
			note(cli, "starting %s", all[i].name);
	}
	return rc;
}

static void print_up(
	struct cli *cli, const struct home *h, const struct kernel_up *all, size_t n)
{
	struct tos_value *rows = tos_array();

	for (size_t i = 0; i < n; i++) {
		struct tos_value *v = map_of("name", tos_text(all[i].name));
		char listen[128] = "";

		kernel_conf_listen(h, all[i].name, listen);
		tos_set(v, "state", tos_text("ready"));
		tos_set(v, "listen", tos_text(listen));
		tos_set(v, "started", tos_bool(all[i].ours));
		tos_push(rows, v);
	}
	if (cli->json)
		print_json(rows);
	else
		table_print(rows, "name:KERNEL state:STATE listen:LISTENS", stdout);
	tos_value_free(rows);
	/* A host that joined has nobody's key: work comes from elsewhere. */
	if (!cli->json)
		puts(*h->principal
				? "\nnext: tos launch facts --path @all --wait"
				: "\nnext: tos kernels; work is sent from where your key is");
}

static int open_or_init(struct cli *cli, struct home *h, const struct listen_at *where)
{
	AUTOBUF said = BUF_INIT;
	int rc = home_open(cli->home, h, &cli->em);

	if (rc != ERR_NOT_FOUND)
		return rc;
	rc = domain_init(cli->home, NULL, where, &said, &cli->em);
	if (rc == 0)
		fputs(buf_cstr(&said), stderr);
	return rc ? rc : home_open(cli->home, h, &cli->em);
}

static int up(struct cli *cli, struct home *h, unsigned n, const struct listen_at *where)
{
	struct kernel_up *all;
	struct names names;
	int rc = make_kernels(cli, h, n, where);

	if (rc < 0)
		return rc;
	rc = home_kernels(h, &names);
	if (rc == 0 && names.n == 0)
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"%s has no kernels; 'tos up -n 3' makes three", h->path);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < names.n; i++)
		if (stop_marked(h, names.v[i])) {
			rc = err_set(&cli->em, ERR_STATE,
				"%s was stopped by 'tos stop --all': 'tos resume --all' first",
				names.v[i]);
			names_fini(&names);
			return rc;
		}
	all = mem_zero(names.n * sizeof(*all));
	for (size_t i = 0; i < names.n; i++)
		all[i].name = names.v[i];
	rc = start_all(cli, h, all, names.n);
	rc = rc ? rc : wait_ready(cli, h, all, names.n);
	if (rc == 0)
		print_up(cli, h, all, names.n);
	free(all);
	names_fini(&names);
	return rc;
}

static int run_up(struct cli *cli)
{
	const char *text = cli_option(cli, "count");
	int64_t n = 0;
	const struct listen_at *where;
	struct listen_at at;
	struct home h;
	int rc;

	if (text && text_int(text, 1, KERNELS_MOST, &n) < 0)
		return cli_usage(cli, "-n %s is no number from 1 to %d", text, KERNELS_MOST);
	rc = cli_listen(cli, &at, &where);
	rc = rc ? rc : open_or_init(cli, &h, where);
	rc = rc ? rc : up(cli, &h, (unsigned)n, where);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_up = {
	.name = "up",
	.args = "",
	.summary = "Start the kernels of this machine, making what is missing",
	.about =
		"Starts every kernel that is configured in $TOS_HOME and does not run, each "
		"under a keeper that "
		"starts it again should it end, and returns when all are ready and linked. "
		"Where there is no "
		"domain it makes one first, as tos init does. With -n it also makes host0, "
		"host1 and so on, "
		"as many as asked for, on 127.0.0.1, ports from 21212 on. Done twice it does "
		"nothing the "
		"second time. --listen is for those that are made; the others stay where their tosd.conf says. What a "
		"kernel says goes to kernels/NAME/log.",
	.examples = "tos up -n 3\tThree kernels on this machine\n"
		    "tos up\tWhat is configured, after a reboot or a join\n",
	.run = run_up,
	.options = { { "count", 'n', "N", "make kernels host0 ... host(N-1) first" },
		LISTEN_OPTIONS },
};

/* ---- down */

static int wait_down(struct cli *cli, const struct home *h, const struct names *all)
{
	int64_t deadline = clock_ms() + cli_timeout(cli, 30000);

	for (size_t i = 0; i < all->n; i++)
		for (int pid; (pid = keeper_pid(h, all->v[i])) != 0; usleep(POLL_MS * 1000))
			if (clock_ms() >= deadline)
				return err_set(&cli->em, ERR_TIMEOUT,
					"%s is still going down (keeper %d); wait, or see "
					"kernels/%s/log",
					all->v[i], pid, all->v[i]);
	return 0;
}

static int stop_each(
	struct cli *cli, const struct home *h, const struct names *all, struct tos_value *rows)
{
	int rc = 0;

	for (size_t i = 0; i < all->n; i++) {
		int pid = keeper_pid(h, all->v[i]);
		struct tos_value *status = NULL, *v = map_of("name", tos_text(all->v[i]));
		const char *what = "was not running";

		if (pid && kill(pid, SIGTERM) == 0)
			what = "stopped";
		else if (pid)
			rc = err_errno(&cli->em, "cannot stop the keeper of %s", all->v[i]);
		else if (ask_status(cli, h, all->v[i], &status) == 0)
			what = "runs, but not by tos up: stop it where it was started";
		tos_value_free(status);
		tos_set(v, "state", tos_text(what));
		tos_push(rows, v);
	}
	return rc;
}

static bool asked_for(const struct cli *cli, const char *name)
{
	for (size_t i = 0; i < cli->args.n_word; i++)
		if (strcmp(cli->args.word[i], name) == 0)
			return true;
	return cli->args.n_word == 0;
}

static int choose(struct cli *cli, const struct home *h, struct names *all)
{
	struct names have;
	int rc = home_kernels(h, &have);

	for (size_t i = 0; rc == 0 && i < have.n; i++)
		if (asked_for(cli, have.v[i]))
			rc = names_add(all, have.v[i]);
	for (size_t i = 0; rc == 0 && i < cli->args.n_word; i++) {
		bool found = false;

		for (size_t k = 0; k < have.n; k++)
			found = found || strcmp(have.v[k], cli->args.word[i]) == 0;
		if (!found)
			rc = err_set(&cli->em, ERR_NOT_FOUND, "there is no kernel %s in %s",
				cli->args.word[i], h->path);
	}
	names_fini(&have);
	return rc;
}

static int run_down(struct cli *cli)
{
	struct tos_value *rows = tos_array();
	struct names all = { NULL, 0 };
	struct home h;
	int rc = home_open(cli->home, &h, &cli->em);

	rc = rc ? rc : choose(cli, &h, &all);
	rc = rc ? rc : stop_each(cli, &h, &all, rows);
	rc = rc ? rc : wait_down(cli, &h, &all);
	if (rc == 0 && cli->json)
		print_json(rows);
	else if (rc == 0)
		table_print(rows, "name:KERNEL state:STATE", stdout);
	names_fini(&all);
	tos_value_free(rows);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_down = {
	.name = "down",
	.args = "[KERNEL]...",
	.summary = "Stop the kernels that tos up started",
	.about = "Tells the keepers to end their kernels and waits until they have. Carriers "
		 "that are there stay in "
		 "the journal and go on at the next tos up.",
	.examples = "tos down\tAll of this TOS_HOME\n"
		    "tos down host1\tOne of them\n",
	.run = run_down,
	.max_args = ARGS_ANY,
	.words = "kernels",
};
