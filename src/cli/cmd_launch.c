/* tos launch */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/where.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/bundle.h"
#include "lib/internal.h"

#define YOUNG_MS       2000 /* within which a kernel hears from the others */
#define YOUNG_PAUSE_MS 50
#define AGAIN_MS       10000

/* ---- code: a file, a shipped carrier, or a line of Lua */

/* What the line returns at each kernel becomes that kernel's row. It all stays on the first
 * line, so that line numbers in messages are the user's own. */
static int wrap_line(const char *lua, struct buf *out)
{
	if (strstr(lua, "function begin"))
		return buf_add_str(out, lua);
	buf_printf(out, "local function line(self) %s\nend\n", lua);
	buf_add_str(out,
		"function begin(self)\n"
		"\tlocal row = line(self)\n"
		"\tif row == nil then return end\n"
		"\tif type(row) ~= 'table' or #row > 0 then row = { value = row } end\n"
		"\trow.kernel = tos.kernel()\n"
		"\ttos.briefcase:folder('RESULTS'):push(row)\n"
		"end\n");
	return buf_check(out);
}

static int shell_of_line(struct cli *cli, const char *lua)
{
	AUTOBUF source = BUF_INIT;
	static const char name[] = "line:";
	int rc = wrap_line(lua, &source);

	rc = rc ? rc
		: tos_shell_source("line", (const char *)source.data, source.len, &cli->shell,
			  cli_err(cli));
	/* Its code is called line, but that is not what was typed. */
	if (rc == ERR_SYNTAX && strncmp(cli->em.text, name, sizeof(name) - 1) == 0) {
		AUTOFREE char *text = mem_strdup(cli->em.text + sizeof(name) - 1);

		err_set(&cli->em, rc, "-e '%s', line %s", lua, text);
	}
	return rc;
}

/* Lua sources are texts; bundles and saved carriers begin with a CBOR array. */
static bool is_source(const char *path)
{
	FILE *f = fopen(path, "re");
	int first = f ? fgetc(f) : EOF;

	if (f)
		fclose(f);
	return first == EOF || (first & 0xe0) != 0x80;
}

int launch_file_of(struct cli *cli, const char *word, char path[4096])
{
	bool is_run = strcmp(cli->args.command->name, "run") == 0;

	if (access(word, F_OK) < 0) {
		AUTOBUF shipped = BUF_INIT;

		carriers_shipped(&shipped, ", ");
		if (strchr(word, '/') || strchr(word, '.') ||
			where_carrier(word, path, 4096) < 0)
			return err_set(&cli->em, ERR_NOT_FOUND,
				"there is no file %s and no shipped carrier of that "
				"name; shipped are: %s%s%s",
				word, buf_cstr(&shipped),
				is_run ? ". A program of the hosts is run with tos run -- "
				       : "",
				is_run ? word : "");
		return 0;
	}
	if (snprintf(path, 4096, "%s", word) >= 4096)
		return err_set(&cli->em, ERR_NAME, "the name of the file is too long");
	return 0;
}

static int shell_of_word(struct cli *cli, const char *word)
{
	char path[4096];
	int rc = launch_file_of(cli, word, path);

	word = path;
	if (rc < 0)
		return rc;
	return is_source(word) ? tos_shell_file(word, &cli->shell, cli_err(cli))
			       : tos_shell_load(word, &cli->shell, cli_err(cli));
}

/* ---- properties */

static int add_data(struct cli *cli, const char *text)
{
	const char *eq = strchr(text, '=');
	char name[129];

	if (!eq || eq == text || eq - text > 128)
		return err_set(&cli->em, ERR_USAGE, "--data %s is not NAME=VALUE", text);
	snprintf(name, sizeof(name), "%.*s", (int)(eq - text), text);
	return tos_shell_push(cli->shell, name, word_value(eq + 1, false), cli_err(cli));
}

int launch_data(struct cli *cli)
{
	const char *v;
	int rc = 0;

	for (size_t it = 0; rc == 0 && (v = args_next(&cli->args, "data", &it));)
		rc = add_data(cli, v);
	return rc;
}

static int set_options(struct cli *cli)
{
	static const char *const named[] = { "itinerant", "fast", "on-unreachable", "expires",
		"name" };
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(named) && rc == 0; i++) {
		const char *v = cli_option(cli, named[i]);

		if (v)
			rc = tos_shell_option(
				cli->shell, named[i], *v ? v : NULL, cli_err(cli));
	}
	return rc;
}

/* The briefcase comes first: the command line knows better. */
int launch_properties(struct cli *cli)
{
	const char *path = cli_option(cli, "path"), *v;
	int rc = briefcase_take(cli);

	rc = rc || !path ? rc : tos_shell_path(cli->shell, path, cli_err(cli));

	rc = rc ? rc : launch_data(cli);
	for (size_t it = 0; rc == 0 && (v = args_next(&cli->args, "module", &it));)
		rc = tos_shell_module(cli->shell, v, cli_err(cli));
	for (size_t it = 0; rc == 0 && (v = args_next(&cli->args, "limit", &it));)
		rc = tos_shell_limit(cli->shell, v, cli_err(cli));
	for (size_t it = 0; rc == 0 && (v = args_next(&cli->args, "seal", &it));)
		rc = tos_shell_option(cli->shell, "seal", v, cli_err(cli));
	for (size_t it = 0; rc == 0 && (v = args_next(&cli->args, "append-only", &it));)
		rc = tos_shell_option(cli->shell, "append-only", v, cli_err(cli));
	return rc ? rc : set_options(cli);
}

static bool has_gone(int rc)
{
	return rc == ERR_CLOSED || rc == ERR_UNREACHABLE;
}

/* A kernel that has just started has not heard from the others yet; one that went away is started
 * again by its keeper. */
static bool is_young(struct cli *cli)
{
	struct tos_value *status = NULL;
	int rc = cli_ask(cli, NULL, "STATUS", NULL, &status);
	bool young = has_gone(rc) ||
		     (rc == 0 && tos_get_int(status, "uptime_ms", YOUNG_MS) < YOUNG_MS);

	tos_value_free(status);
	return young;
}

/* A name that nobody knows is most often misspelt: an error, unless the path has a rule for
 * hosts that aren't there. */
static int check_hosts(struct cli *cli)
{
	AUTOBUF unknown = BUF_INIT;
	AUTOBUF known = BUF_INIT;
	int64_t until = clock_ms() + AGAIN_MS;
	int rc;

	for (;;) {
		unknown.len = known.len = 0;
		rc = shell_unknown_hosts(
			cli->shell, cli->connection, &unknown, &known, &cli->em);
		if ((rc == 0 && (!unknown.len || !is_young(cli))) ||
			(rc < 0 && !has_gone(rc)) || clock_ms() >= until)
			break;
		usleep(YOUNG_PAUSE_MS * 1000);
		if (has_gone(rc))
			connection_again(cli->connection, YOUNG_MS, &cli->em);
	}
	if (rc < 0 || !unknown.len)
		return rc;
	if (cli_option(cli, "on-unreachable")) {
		fprintf(stderr,
			"tos launch: no kernel is known by the name %s; going on, since "
			"--on-unreachable is given\n",
			buf_cstr(&unknown));
		return 0;
	}
	return err_set(&cli->em, ERR_NOT_FOUND,
		"no kernel is known by the name %s; there are %s. To launch all "
		"the same, say --on-unreachable what to do",
		buf_cstr(&unknown), buf_cstr(&known));
}

static int sign(struct cli *cli)
{
	const char *author = cli_option(cli, "author");
	struct tos_principal *a;
	int rc;

	if (!author)
		return 0;
	rc = tos_principal_load(cli->home, author, &a, cli_err(cli));
	if (rc < 0)
		return rc;
	rc = tos_shell_sign(cli->shell, a, cli_err(cli));
	tos_principal_free(a);
	return rc;
}

static int prepare(struct cli *cli)
{
	const char *line = cli_option(cli, "execute");
	int rc = line               ? shell_of_line(cli, line)
		 : cli->args.n_word ? shell_of_word(cli, cli->args.word[0])
				    : 0; /* in the briefcase */

	rc = rc ? rc : launch_properties(cli);
	if (cli_option(cli, "local"))
		return rc;
	rc = rc ? rc : sign(cli);
	rc = rc ? rc : cli_principal(cli);
	rc = rc ? rc : cli_connect(cli);
	if (rc == 0 && cli->remote)
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"a carrier's home is a kernel of this machine, which %s is not; "
			"--path %s goes there",
			cli->kernel, cli->kernel);
	return rc ? rc : check_hosts(cli);
}

/* ---- without a kernel */

static void local_log(void *arg, const char *level, const char *text)
{
	struct tos_value *v = tos_text(text);

	(void)arg;
	fprintf(stderr, "local  %s", strcmp(level, "info") == 0 ? "" : level);
	fputs(strcmp(level, "info") == 0 ? "" : ": ", stderr);
	print_element(v, stderr);
	fputc('\n', stderr);
	tos_value_free(v);
}

static bool local_stop(void *arg)
{
	(void)arg;
	return interrupted();
}

static int run_local(struct cli *cli)
{
	struct tos_local how = { local_log, local_stop, NULL, cli->timeout_ms };
	struct tos_value *outcome = NULL;
	int code, rc = prepare(cli);

	if (rc < 0)
		return cli_fail(cli, rc);
	fputs("tos launch: --local runs it once, here, in a small sandbox (seccomp, limits) "
	      "instead of a kernel's; posts go nowhere\n",
		stderr);
	interrupt_catch();
	rc = tos_shell_run(cli->shell, &how, &outcome, cli_err(cli));
	if (rc < 0)
		return cli_fail(cli, rc);
	code = interrupted() ? EXIT_DETACHED : outcome_print(cli, outcome);
	tos_value_free(outcome);
	return code;
}

static int run_launch(struct cli *cli)
{
	bool line = cli_option(cli, "execute"), wait = cli_option(cli, "wait");
	char name[129];
	int rc;

	if (line && cli->args.n_word)
		return cli_usage(cli, "give either -e or a carrier, not both");
	if (!line && !cli->args.n_word && !cli_option(cli, "briefcase"))
		return cli_usage(cli, "which carrier? tos launch FILE, a shipped one such as "
				      "facts, or -e 'LUA'");
	if (cli_option(cli, "local"))
		return run_local(cli);
	rc = prepare(cli);
	rc = rc ? rc
		: tos_shell_launch(
			  cli->shell, cli->connection, cli->principal, name, cli_err(cli));
	if (rc < 0)
		return cli_fail(cli, rc);
	if (cli->json && !wait) {
		struct tos_value *v = map_of("name", tos_text(name));

		print_json(v);
		tos_value_free(v);
	} else if (!cli->json)
		puts(name);
	fflush(stdout);
	return wait ? outcome_wait(cli, name, true, false) : EXIT_DONE;
}

const struct command command_launch = {
	.name = "launch",
	.args = "[FILE | CARRIER]",
	.summary = "Sign a carrier and send it on its way",
	.about = "Takes a Lua source, a bundle made by tos build, a saved carrier, or the name of a shipped carrier (facts, "
		 "postman). A source is checked for its syntax and signed on the fly before anything is sent, with "
		 "the modules that it requires by name, from its folder or from the system's libraries. The "
		 "kernel that is asked becomes the carrier's home. Prints the carrier's name.\n\n"
		 "A path is written host0,host1|host2,@all: a comma separates entries, a bar alternatives, and @all "
		 "is every kernel, once each. Without a path the carrier runs at its home.\n\n"
		 "With --wait its log lines and its states go to standard error as they come, and its outcome to "
		 "standard output: a row a kernel from folder RESULTS, the trail, and any fault; the exit code is 0 if "
		 "it finished. Of a carrier that cloned itself it waits for the clones, too, and prints one table. Ctrl-C detaches with exit code 130 and leaves it running; --timeout gives up waiting.\n\n"
		 "With --briefcase it takes folders along that are written in a file: JSON such as {\"SITES\": [\"a\", "
		 "\"b\"]}, with bytes as \"base64:...\", or the same in CBOR; what tos wait --json printed is understood "
		 "too. Folder HOST is the path, and folder CODE, with a Lua source as its one element, the carrier, so "
		 "that a briefcase alone can be launched.\n\n"
		 "With --local no kernel is needed, nor a domain: begin runs once in a child of this command, at a place "
		 "called local, where posts and moves are refused, and its outcome is printed as with --wait. That "
		 "child is confined by seccomp and the carrier's limits, which is less than a kernel's sandbox.",
	.examples = "tos launch facts --path @all --wait\tFacts of every host\n"
		    "tos launch hello.lua --path host0,host1,host2 --wait\tA carrier of one's own\n"
		    "tos launch -e 'return tos.call(\"Monitor\", {\"load\"})' --path @all --wait\tOne line of Lua\n"
		    "tos launch check.lua --local --data LEVEL=3\tTry it without a kernel\n"
		    "tos launch --briefcase work.json --wait\tCode, path and data from one file\n"
		    "tos launch check.lua --path 'a|b,c' --data LEVEL=3 --limit cpu=2 --on-unreachable skip\tWith "
		    "alternatives, data and limits\n",
	.run = run_launch,
	.max_args = 1,
	.words = "carriers",
	.options = {
		{ "execute", 'e', "LUA", "take this as the body of begin; what it returns goes to RESULTS" },
		PROPERTY_OPTIONS,
		{ "wait", 'w', NULL, "wait for the outcome and print it" },
		{ "local", 0, NULL, "run it here and now, once, without any kernel" },
		{ "name", 0, "NAME", "what its code is called" },
		{ "as", 0, "PRINCIPAL", "the owner; default from domain.conf" },
		{ "author", 0, "PRINCIPAL", "who signs the code; default the owner" },
	},
};
