/*
 * tos run: a command or a carrier on many hosts.
 *
 * One carrier (carriers/run.lua) stays at home and conducts; one goes to each host and waits there
 * for its turn. All have the same code, which is sent to a host once; what they are to do is in
 * their folder TASK.
 */
#include "cli/run.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/where.h"
#include "cli/commands.h"
#include "lib/bundle.h"
#include "seal/seal.h"

#define TIMEOUT_S   60
#define ARRIVE_S    30
#define HELLO_MS    20000
#define OUTPUT_MAX  ((int64_t)256 << 10) /* of one host */
#define OUTPUT_ALL  ((int64_t)3 << 20)   /* of all, in the outcome */
#define STDIN_MAX   ((size_t)256 << 10)  /* a program takes as much */
#define HOSTS_MAX   10000
#define PROGRAM_MAX 64 /* names of programs' limits */

/* ---- which hosts */

static int hosts_text(struct cli *cli, struct buf *path)
{
	const char *v;

	for (size_t it = 0; (v = args_next(&cli->args, "hosts", &it));)
		buf_printf(path, "%s%s", path->len ? "," : "", v);
	for (size_t it = 0; (v = args_next(&cli->args, "group", &it));)
		buf_printf(path, "%s%s%s", path->len ? "," : "", *v == '@' ? "" : "@", v);
	if (!path->len)
		buf_add_str(path, "@all");
	return buf_check(path);
}

/* Each entry once, known by its first name. */
static int hosts_find(struct run *r)
{
	AUTOBUF path = BUF_INIT;
	struct tos_value *entries = NULL;
	int rc = hosts_text(r->cli, &path);

	rc = rc ? rc : path_expand(buf_cstr(&path), r->cli->connection, &entries, &r->cli->em);
	for (size_t i = 0; rc == 0 && i < tos_len(entries); i++) {
		const char *entry = tos_as_text(tos_at(entries, i), "");
		char name[64];

		path_alternative(entry, 0, name);
		if (tos_get(r->rows, name))
			continue;
		rc = tos_set(r->rows, name, tos_nil());
		rc = rc ? rc : tos_push(r->hosts, tos_text(name));
		rc = rc ? rc : tos_push(r->paths, tos_text(entry));
		if ((int)strlen(name) > r->width)
			r->width = (int)strlen(name);
	}
	tos_value_free(entries);
	tos_value_free(r->rows);
	r->rows = tos_map();
	if (rc == 0 && tos_len(r->hosts) > HOSTS_MAX)
		rc = err_set(&r->cli->em, ERR_TOO_LARGE, "more than %d hosts", HOSTS_MAX);
	return rc;
}

/* ---- the task */

static int bad_option(struct cli *cli, const char *option, const char *text, const char *want)
{
	return err_set(&cli->em, ERR_USAGE, "--%s %s is not %s", option, text, want);
}

static int add_env(struct cli *cli, struct tos_value *task)
{
	struct tos_value *env = tos_map();
	const char *v;
	int rc = 0;

	for (size_t it = 0; rc == 0 && (v = args_next(&cli->args, "env", &it));) {
		const char *eq = strchr(v, '=');
		AUTOFREE char *name = mem_strdup(v);

		if (eq == v)
			rc = bad_option(cli, "env", v, "NAME=VALUE");
		else if (eq)
			name[eq - v] = 0;
		else if (!getenv(name))
			rc = bad_option(cli, "env", v, "NAME=VALUE, nor set here");
		rc = rc ? rc : tos_set(env, name, tos_text(eq ? eq + 1 : getenv(name)));
	}
	if (rc == 0 && tos_len(env))
		return tos_set(task, "env", env);
	tos_value_free(env);
	return rc;
}

/* Of programs: memory=64M, cpu=5s, processes=10 ... Which there are Executor knows. */
static int add_limits(struct cli *cli, struct tos_value *task)
{
	struct tos_value *limits = tos_map();
	const char *v;
	int rc = 0;

	for (size_t it = 0; rc == 0 && (v = args_next(&cli->args, "limit", &it));) {
		const char *eq = strchr(v, '=');
		char name[PROGRAM_MAX];
		uint64_t n = 0;
		int64_t ms = 0;

		if (!eq || eq == v || eq - v >= PROGRAM_MAX) {
			rc = bad_option(cli, "limit", v, "NAME=VALUE");
			break;
		}
		snprintf(name, sizeof(name), "%.*s", (int)(eq - v), v);
		if (text_bytes(eq + 1, &n) == 0 && n <= INT64_MAX)
			rc = tos_set(limits, name, tos_int((int64_t)n));
		else if (text_duration(eq + 1, &ms) == 0)
			rc = tos_set(limits, name, tos_float((double)ms / 1000));
		else
			rc = bad_option(
				cli, "limit", v, "NAME=VALUE such as memory=64M or cpu=5s");
	}
	if (rc == 0 && tos_len(limits))
		return tos_set(task, "limits", limits);
	tos_value_free(limits);
	return rc;
}

static int add_stdin(struct cli *cli, struct tos_value *task)
{
	const char *file = cli_option(cli, "stdin");
	AUTOBUF text = BUF_INIT;
	int rc;

	if (!file)
		return 0;
	rc = bytes_read(
		strcmp(file, "-") == 0 ? "/dev/stdin" : file, STDIN_MAX, &text, &cli->em);
	return rc ? rc : tos_set(task, "stdin", tos_bytes(text.data, text.len));
}

static int add_time(struct cli *cli, struct tos_value *task, const char *option,
	const char *key, int64_t def_s)
{
	const char *v = cli_option(cli, option);
	int64_t ms = def_s * 1000;

	if (v && (text_duration(v, &ms) < 0 || ms <= 0 || ms > 86400000))
		return bad_option(cli, option, v, "a time such as 10s or 5m");
	return tos_set(task, key, tos_float((double)ms / 1000));
}

static int add_number(struct cli *cli, struct tos_value *task, const char *option)
{
	const char *v = cli_option(cli, option);
	int64_t n;

	if (!v)
		return 0;
	if (text_int(v, 0, 1000, &n) < 0)
		return bad_option(cli, option, v, "a number from 0 to 1000");
	return tos_set(task, option, tos_int(n));
}

/* --pause: behind each wave, or behind the first N. */
static int add_pause(struct cli *cli, struct tos_value *task)
{
	const char *v = cli_option(cli, "pause");
	int64_t n;

	if (!v)
		return 0;
	if (strcmp(v, "each") == 0)
		return tos_set(task, "pause", tos_bool(true));
	if (text_int(v, 1, 1000, &n) < 0)
		return bad_option(cli, "pause", v, "'each' or a number of waves");
	return tos_set(task, "pause", tos_int(n));
}

static int add_text(
	struct cli *cli, struct tos_value *task, const char *option, const char *key)
{
	const char *v = cli_option(cli, option);

	return v ? tos_set(task, key, tos_text(v)) : 0;
}

/* "3", or "10%" of at most 100, as the library waves has it. */
static bool amount_ok(const char *s, size_t n, bool zero)
{
	char text[24], *end;
	double v;

	for (; n && *s == ' '; n--)
		s++;
	for (; n && s[n - 1] == ' '; n--)
		;
	if (text_copy(text, sizeof(text), s, n) < 0 || !isdigit((unsigned char)*text))
		return false;
	if (strspn(text, "0123456789.%") != n)
		return false;
	v = strtod(text, &end);
	if (*end == '%')
		return !end[1] && v <= 100 && (zero || v > 0);
	return !*end && !strchr(text, '.') && (zero || v > 0);
}

static int add_wave(struct cli *cli, struct tos_value *task)
{
	const char *v = cli_option(cli, "wave"), *fail = cli_option(cli, "max-fail");
	int rc;

	for (const char *p = v; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (!amount_ok(p, strcspn(p, ","), false))
			return bad_option(cli, "wave", v,
				"numbers of hosts or shares of them, such as 1,10%,100%");
	if (fail && !amount_ok(fail, strlen(fail), true))
		return bad_option(
			cli, "max-fail", fail, "a number of hosts or a share such as 10%");
	rc = add_text(cli, task, "wave", "waves");
	return rc ? rc : add_text(cli, task, "max-fail", "max_fail");
}

/* A named action of the hosts': its arguments are the words. */
static int add_action(struct run *r, struct tos_value *task, const char *name)
{
	struct tos_value *action = map_of("name", tos_text(name)), *args = tos_map();
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < r->cli->args.n_word; i++) {
		const char *v = r->cli->args.word[i], *eq = strchr(v, '=');
		AUTOFREE char *key = mem_strdup(v);

		if (!eq || eq == v) {
			rc = err_set(&r->cli->em, ERR_USAGE,
				"'%s' is no argument of an action, such as address=192.0.2.7",
				v);
			break;
		}
		key[eq - v] = 0;
		rc = tos_set(args, key, tos_text(eq + 1));
	}
	rc = rc ? rc : tos_set(action, "args", STEAL(args));
	rc = rc ? rc : tos_set(task, "action", STEAL(action));
	tos_value_free(args);
	tos_value_free(action);
	return rc;
}

static int add_command(struct run *r, struct tos_value *task)
{
	struct tos_value *argv = tos_array();
	const char *undo = cli_option(r->cli, "dry-run") ? NULL : cli_option(r->cli, "undo");
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < r->cli->args.n_word; i++)
		rc = tos_push(argv, tos_text(r->cli->args.word[i]));
	rc = rc ? rc : tos_set(task, "argv", STEAL(argv));
	tos_value_free(argv);
	if (rc || !undo)
		return rc;
	argv = tos_array();
	rc = tos_push(argv, tos_text("sh"));
	rc = rc ? rc : tos_push(argv, tos_text("-c"));
	rc = rc ? rc : tos_push(argv, tos_text(undo));
	rc = rc ? rc : tos_set(task, "undo", STEAL(argv));
	tos_value_free(argv);
	return rc;
}

/* The program itself: one file, or one for each type of machine. What is there already is not sent
 * again, neither to the home nor from there to the hosts. */
static int add_files(struct run *r, struct tos_value *task)
{
	struct tos_value *files = tos_array(), *one = NULL;
	struct cli *cli = r->cli;
	const char *v;
	int rc = 0;

	for (size_t it = 0; rc == 0 && (v = args_next(&cli->args, "file", &it));) {
		if (r->is_carrier)
			rc = err_set(&cli->em, ERR_USAGE,
				"--file brings the program of a command, and %s is a carrier",
				cli->args.word[0]);
		rc = rc ? rc : content_bring(cli, v, &one);
		rc = rc ? rc : tos_push(files, STEAL(one));
	}
	if (rc == 0 && tos_len(files))
		return tos_set(task, "files", files);
	tos_value_free(files);
	return rc;
}

static int64_t output_each(const struct run *r)
{
	int64_t each = OUTPUT_ALL / (int64_t)(tos_len(r->hosts) ? tos_len(r->hosts) : 1);

	return each < OUTPUT_MAX ? each : OUTPUT_MAX;
}

/* What all of them are told. turns: they ask before they begin. */
static int task_make(struct run *r, struct tos_value *task)
{
	struct cli *cli = r->cli;
	bool turns = cli_option(cli, "wave") || cli_option(cli, "where") ||
		     cli_option(cli, "undo") || cli_option(cli, "retries") ||
		     cli_option(cli, "dry-run");
	uint8_t key[16];
	char hex[2 * sizeof(key) + 1];
	int rc = tos_set(task, "hosts", tos_value_copy(r->hosts));

	/* By which the one at home knows the others: any carrier may post to it. */
	random_bytes(key, sizeof(key));
	rc = rc ? rc : tos_set(task, "key", tos_text(text_hex(key, sizeof(key), hex)));
	rc = rc ? rc : tos_set(task, "turns", tos_bool(turns));
	rc = rc ? rc : tos_set(task, "dry", tos_bool(cli_option(cli, "dry-run") != NULL));
	rc = rc ? rc : tos_set(task, "durable", tos_bool(r->durable));
	rc = rc ? rc : tos_set(task, "output", tos_int(output_each(r)));
	rc = rc ? rc : add_time(cli, task, "timeout", "timeout", TIMEOUT_S);
	rc = rc ? rc : add_time(cli, task, "arrive", "arrive", ARRIVE_S);
	rc = rc ? rc : add_wave(cli, task);
	rc = rc ? rc : add_text(cli, task, "where", "where");
	rc = rc ? rc : add_number(cli, task, "retries");
	rc = rc ? rc : add_pause(cli, task);
	rc = rc ? rc : add_env(cli, task);
	rc = rc ? rc : add_limits(cli, task);
	rc = rc ? rc : add_stdin(cli, task);
	rc = rc ? rc : add_files(r, task);
	if (rc == 0 && cli_option(cli, "action"))
		rc = add_action(r, task, cli_option(cli, "action"));
	else if (rc == 0 && !r->is_carrier)
		rc = add_command(r, task);
	return rc;
}

/* ---- the carriers */

static int limits_set(struct run *r)
{
	char inbox[32];
	size_t n = 2 * tos_len(r->hosts) + 64;
	int rc = tos_shell_limit(r->cli->shell, "lifetime=24h", cli_err(r->cli));

	snprintf(inbox, sizeof(inbox), "inbox=%zu", n < 256 ? 256 : n > 65536 ? 65536 : n);
	rc = rc ? rc : tos_shell_limit(r->cli->shell, inbox, cli_err(r->cli));
	rc = rc ? rc : tos_shell_limit(r->cli->shell, "posts=10000", cli_err(r->cli));
	rc = rc ? rc : tos_shell_limit(r->cli->shell, "programs=4", cli_err(r->cli));
	if (rc == 0 && !r->durable)
		rc = tos_shell_option(r->cli->shell, "fast", NULL, cli_err(r->cli));
	return rc;
}

static int pack(struct run *r, const struct tos_value *task, const char *role)
{
	struct tos_value *copy = tos_value_copy(task), *folder = tos_array(), *b = tos_map();
	int rc = tos_set(copy, "role", tos_text(role));

	rc = rc ? rc : tos_push(folder, STEAL(copy));
	rc = rc ? rc : tos_set(b, "TASK", STEAL(folder));
	rc = rc ? rc : shell_pack(r->cli->shell, b, &r->cli->em);
	tos_value_free(copy);
	tos_value_free(folder);
	tos_value_free(b);
	return rc;
}

/* We learn our own name from the first answer. */
static int name_learn(struct run *r)
{
	struct tos_value *answer = NULL;
	int rc = 0;

	if (!*tos_connection_name(r->cli->connection))
		rc = cli_ask(r->cli, NULL, "STATUS", NULL, &answer);
	tos_value_free(answer);
	return rc;
}

static int launch_conductor(struct run *r, struct tos_value *task)
{
	struct tos_value *answer = NULL;
	struct cli *cli = r->cli;
	int64_t until = clock_ms() + HELLO_MS;
	int rc = name_learn(r);

	rc = rc ? rc : tos_set(task, "client", tos_text(tos_connection_name(cli->connection)));

	rc = rc ? rc : pack(r, task, "conductor");
	rc = rc ? rc
		: tos_shell_launch(
			  cli->shell, cli->connection, cli->principal, r->name, cli_err(cli));
	rc = rc ? rc : cli_ask(cli, NULL, "WATCH", map_of("name", tos_text(r->name)), &answer);
	if (rc == 0) /* it may have ended by now */
		snprintf(r->state, sizeof(r->state), "%s", tos_get_text(answer, "state", ""));
	tos_value_free(answer);
	while (rc == 0 && !r->hello && !state_is_final(r->state) && clock_ms() < until) {
		rc = run_receive(r, 200);
		rc = rc == ERR_TIMEOUT ? 0 : rc;
	}
	if (rc == 0 && !r->hello && !state_is_final(r->state))
		rc = err_set(&cli->em, ERR_TIMEOUT, "%s does not begin", r->name);
	return rc;
}

/* The home is the last alternative: from there it tells that the host was not reached. */
static int launch_one(struct run *r, struct tos_value *task, const char *entry)
{
	const char *home = tos_connection_kernel(r->cli->connection);
	struct tos_value *at = tos_array();
	char name[64], path[1200], launched[129];
	bool is_home = false;
	int rc = 0;

	for (unsigned k = 0; rc == 0 && path_alternative(entry, k, name); k++) {
		is_home = is_home || strcmp(name, home) == 0;
		rc = tos_push(at, tos_text(name));
	}
	path_alternative(entry, 0, name);
	snprintf(path, sizeof(path), is_home ? "%s" : "%s|%s", entry, home);
	rc = rc ? rc : tos_set(task, "at", STEAL(at));
	rc = rc ? rc : tos_set(task, "host", tos_text(name));
	rc = rc ? rc : pack(r, task, "worker");
	rc = rc ? rc : tos_shell_path(r->cli->shell, path, cli_err(r->cli));
	rc = rc ? rc
		: tos_shell_launch(r->cli->shell, r->cli->connection, r->cli->principal,
			  launched, cli_err(r->cli));
	tos_value_free(at);
	return rc;
}

/* What came meanwhile is taken, so that the first results are seen while the last ones are sent. */
static int launch_all(struct run *r, struct tos_value *task)
{
	int rc =
		tos_shell_option(r->cli->shell, "on-unreachable", "alternate", cli_err(r->cli));

	/* It tries again by itself to get to a host that is down. */
	rc = rc ? rc : tos_shell_option(r->cli->shell, "itinerant", NULL, cli_err(r->cli));
	rc = rc ? rc : tos_set(task, "boss", tos_text(r->name));
	for (size_t i = 0; rc == 0 && i < tos_len(r->paths); i++) {
		rc = launch_one(r, task, tos_as_text(tos_at(r->paths, i), ""));
		while (rc == 0 && run_receive(r, 0) == 0)
			;
	}
	return rc;
}

/* ---- the code */

static int code_make(struct run *r, struct tos_value *task)
{
	struct cli *cli = r->cli;
	char path[4096], module[129];
	int rc;

	if (where_carrier("run", path, sizeof(path)) < 0)
		return err_set(&cli->em, ERR_NOT_FOUND,
			"the carrier run is not installed beside this program");
	rc = tos_shell_file(path, &cli->shell, cli_err(cli));
	if (rc < 0 || !r->is_carrier)
		return rc;
	rc = launch_file_of(cli, cli->args.word[0], path);
	rc = rc ? rc : shell_take(cli->shell, path, module, &cli->em);
	rc = rc ? rc : tos_set(task, "carrier", tos_text(module));
	return rc ? rc : launch_data(cli);
}

static int prepare(struct run *r, struct tos_value *task)
{
	struct cli *cli = r->cli;
	int rc = cli_principal(cli);

	rc = rc ? rc : cli_connect(cli);
	if (rc == 0 && cli->remote)
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"the home of a run is a kernel of this machine, which %s is not; "
			"--hosts %s runs it there",
			cli->kernel, cli->kernel);
	rc = rc ? rc : hosts_find(r);
	rc = rc ? rc : task_make(r, task);
	rc = rc ? rc : code_make(r, task);
	return rc ? rc : limits_set(r);
}

static int launch_and_follow(struct run *r, struct tos_value *task)
{
	int rc = prepare(r, task);

	rc = rc ? rc : launch_conductor(r, task);
	/* One that has ended by now says why. */
	if (rc == 0 && !state_is_final(r->state))
		rc = launch_all(r, task);
	return rc < 0 ? cli_fail(r->cli, rc) : run_follow(r);
}

static int run_run(struct cli *cli)
{
	struct run r = {
		.cli = cli, .rows = tos_map(), .hosts = tos_array(), .paths = tos_array()
	};
	struct tos_value *task;
	int code;

	r.is_carrier = !cli->args.dashes && !cli_option(cli, "action");
	r.durable = cli_option(cli, "durable");
	if (cli_option(cli, "action") &&
		(cli->args.dashes || cli_option(cli, "file") || cli_option(cli, "undo")))
		code = cli_usage(cli,
			"--action takes the action's arguments, as in tos run --action block "
			"address=192.0.2.7, and neither a command nor --file or --undo");
	else if (cli->args.dashes && (cli->args.n_before || !cli->args.n_word))
		code = cli_usage(cli, "a command stands behind --, as in tos run -- uname -a");
	else if (cli->args.dashes && cli->args.n_word == 1 && strchr(cli->args.word[0], ' ') &&
		 !cli_option(cli, "file"))
		code = cli_usage(cli,
			"'%.200s' is no program; a line for the shell is run with "
			"tos run -- sh -c '%.200s'",
			cli->args.word[0], cli->args.word[0]);
	else if (r.is_carrier && cli->args.n_word != 1)
		code = cli_usage(
			cli, "what is to be run? tos run -- COMMAND ARGS, or tos run CARRIER");
	else {
		task = tos_map();
		cli->timeout_ms = 0; /* it is the hosts' */
		interrupt_catch();
		code = launch_and_follow(&r, task);
		tos_value_free(task);
	}
	tos_value_free(r.rows);
	tos_value_free(r.hosts);
	tos_value_free(r.paths);
	tos_value_free(r.summary);
	return code;
}

const struct command command_run = {
	.name = "run",
	.runs_words = true,
	.args = "[-- COMMAND [ARG]... | CARRIER | --action NAME [ARG=VALUE]...]",
	.summary = "Run a command or a carrier on many hosts",
	.about = "Runs a command in a sandbox on every host at once, or on those that --hosts, --group and --where name, prints what "
		 "it prints as it comes, each line with its host in front, and a table at the end on standard error. The exit code "
		 "is 0 if it ended well everywhere. A command is looked for in the system's own places; 'sh -c' takes a line for the "
		 "shell. Policy on each host says what may be run there.\n\n"
		 "With --file the program is brought along: its bytes go into the content store of the home, from there by their digest to "
		 "each host that has them not, and are admitted there, which takes a principal who may admit. A second run sends what "
		 "has changed.\n\n"
		 "A carrier (a Lua source or the name of a shipped one) is begun on each of the hosts instead, and what it puts into "
		 "RESULTS is printed together.\n\n"
		 "With --action a privileged step that the hosts' configuration names is run by them, if a rule there grants it: "
		 "'tos action' lists them.\n\n"
		 "One carrier at home conducts, and one goes to each host, so the work goes on when this command has gone: Ctrl-C "
		 "detaches (exit code 130) and 'tos wait' prints the outcome. A host that can't be reached is down, after --arrive at "
		 "the latest. --timeout is what the command gets on each host, 60 s unless told; then it is ended there.\n\n"
		 "With --wave hosts are taken a few at a time: 1,10%,100% is one, then a tenth of all, then the rest. More failures "
		 "than --max-fail allows (none; N; N% of a wave) stop it behind that wave; --undo is then run, for the shell, where "
		 "the command was. 'tos post NAME/run pause', resume, stop and retry steer it; --pause does so behind a wave.\n\n"
		 "--dry-run goes to the hosts as well, and asks there whether it may and can be run: policy, program, limits.\n\n"
		 "--where asks each host's Monitor on the spot: os, host, memory, load, cpus, hostname, machine, release, uptime, or "
		 "fields such as memory.available, compared by = != < > <= >=, with commas between.",
	.examples = "tos run -- uname -a\tOn every kernel\n"
		    "tos run --hosts host1,host2 -- df -h /\tOn two\n"
		    "tos run --where 'os=Linux,memory>4G' -- free -m\tOn those that have it\n"
		    "tos run --wave 1,10%,100% --max-fail 5% -- sh -c 'test -r /etc/hostname'\tCarefully\n"
		    "tos run --file ./agent -- agent --once\tA program of one's own\n"
		    "tos run facts --group all\tA carrier\n"
		    "tos run --action block address=192.0.2.7\tA privileged step that the hosts name\n",
	.run = run_run,
	.max_args = ARGS_ANY,
	.words = "carriers",
	.options = {
		{ "hosts", 'H', "PATH", "these, such as host0,host1|host2,@web; default every kernel; may be repeated" },
		{ "group", 'g', "GROUP", "the hosts of this group, or with a label such as os=debian; may be repeated" },
		{ "where", 'w', "FACTS", "of those the ones for which this holds, such as 'os=Linux,memory>4G'" },
		{ "wave", 0, "SIZES", "a few at a time, such as 1,10%,100%" },
		{ "max-fail", 0, "N", "how many failures, or N% of a wave, do not stop it; default none with --wave" },
		{ "retries", 0, "N", "how often a host that failed is tried again" },
		{ "pause", 0, "N", "pause behind the first N waves, or behind 'each'" },
		{ "undo", 0, "LINE", "a line for the shell that takes the change back when too much failed" },
		{ "dry-run", 'n', NULL, "only look: which hosts, in which wave, and may and can it be run there" },
		{ "env", 'e', "NAME=VALUE", "in the command's environment; without a value the one here; may be repeated" },
		{ "stdin", 0, "FILE", "what the command reads, - for standard input; at most 256K" },
		{ "action", 0, "NAME", "run this action of the hosts; what stands behind are its arguments" },
		{ "file", 'f', "FILE", "bring this program and run it as COMMAND; one for each type of machine" },
		{ "limit", 'l', "NAME=VALUE", "of the program: memory=64M, cpu=5s, processes=10; may be repeated" },
		{ "data", 'd', "NAME=VALUE", "push VALUE, text or JSON, into a carrier's folder NAME; may be repeated" },
		{ "arrive", 0, "TIME", "how long a host may take to be reached, default 30s" },
		{ "durable", 0, NULL, "in the journals: it survives crashes of its home and of the hosts' kernels" },
		{ "quiet", 'q', NULL, "no table if all went well" },
		{ "as", 0, "PRINCIPAL", "whose it is; default from domain.conf" },
	},
};
