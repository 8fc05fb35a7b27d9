/* tos log */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"

#define SOURCES_MOST 64
#define LINES_MOST   1000

struct source {
	char kernel[64];
	int64_t after;
	bool failed;
};

/* Which kernels to ask: those of a carrier's trail, its home among them, or the one that is
 * connected. */
static void add_source(struct source *s, size_t *n, const char *kernel)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp(s[i].kernel, kernel) == 0)
			return;
	if (*kernel && *n < SOURCES_MOST)
		snprintf(s[(*n)++].kernel, sizeof(s->kernel), "%s", kernel);
}

static int find_sources(struct cli *cli, const char *carrier, struct source *s, size_t *n)
{
	struct tos_value *v = NULL;
	char home[64];
	int rc;

	if (!carrier) {
		rc = cli_connect(cli);
		if (rc == 0)
			add_source(s, n, cli_kernel(cli));
		return rc;
	}
	cli_home_of(carrier, home);
	add_source(s, n, home);
	rc = cli_ask(cli, home, "SHOW", map_of("name", tos_text(carrier)), &v);
	if (rc == 0)
		add_source(s, n, tos_get_text(v, "kernel", ""));
	for (size_t i = 0; rc == 0 && i < tos_len(tos_get(v, "trail")); i++)
		add_source(s, n, tos_get_text(tos_at(tos_get(v, "trail"), i), "kernel", ""));
	tos_value_free(v);
	return rc;
}

static int read_source(
	struct cli *cli, struct source *s, const char *carrier, struct tos_value *lines)
{
	struct tos_value *args = tos_map(), *answer = NULL;
	int rc = cli_connect_to(cli, s->kernel);

	tos_set(args, "after", tos_int(s->after));
	tos_set(args, "most", tos_int(LINES_MOST));
	if (carrier)
		tos_set(args, "name", tos_text(carrier));
	if (rc < 0)
		tos_value_free(args);
	else
		rc = cli_ask(cli, s->kernel, "LOG", args, &answer);
	for (size_t i = 0; rc == 0 && i < tos_len(tos_get(answer, "lines")); i++) {
		struct tos_value *line = tos_value_copy(tos_at(tos_get(answer, "lines"), i));

		if (!tos_get(line, "kernel"))
			tos_set(line, "kernel", tos_text(s->kernel));
		tos_push(lines, line);
	}
	if (rc == 0)
		s->after = tos_get_int(answer, "next", s->after);
	tos_value_free(answer);
	return rc;
}

static int by_wall(const void *a, const void *b)
{
	int64_t x = tos_get_int(*(const struct tos_value *const *)a, "wall", 0);
	int64_t y = tos_get_int(*(const struct tos_value *const *)b, "wall", 0);

	return x < y ? -1 : x > y;
}

static void print_line(const struct cli *cli, const struct tos_value *line)
{
	char when[CLOCK_TEXT_BYTES];

	if (cli->json) { /* one to a line, so that it can be followed */
		char *json = tos_to_json(line, 0);

		puts(json ? json : "null");
		free(json);
		return;
	}
	clock_text(tos_get_int(line, "wall", 0), when);
	/* The kernel's own lines begin with time, level, program and name already. */
	if (strncmp(tos_get_text(line, "text", ""), when, 20) != 0)
		printf("%s %s %s: ", when, tos_get_text(line, "level", ""),
			tos_get_text(line, "kernel", "?"));
	print_element(tos_get(line, "text"), stdout);
	putchar('\n');
}

static void print_lines(const struct cli *cli, const struct tos_value *lines)
{
	size_t n = tos_len(lines);
	const struct tos_value **each = mem_zero((n + 1) * sizeof(*each));

	for (size_t i = 0; i < n; i++)
		each[i] = tos_at(lines, i);
	qsort(each, n, sizeof(*each), by_wall);
	for (size_t i = 0; i < n; i++)
		print_line(cli, each[i]);
	fflush(stdout);
	free(each);
}

/* A kernel that still has it in its own log has just told us. */
static bool said_already(const struct tos_value *lines, const struct tos_value *log)
{
	const char *kernel = tos_as_text(tos_at(log, 1), ""),
		   *text = tos_as_text(tos_at(log, 2), "");
	int64_t wall = tos_as_int(tos_at(log, 0), 0);

	for (size_t i = 0; *text && i < tos_len(lines); i++) {
		const struct tos_value *line = tos_at(lines, i);

		if (llabs(tos_get_int(line, "wall", 0) - wall) < 1000 &&
			strcmp(tos_get_text(line, "kernel", ""), kernel) == 0 &&
			strstr(tos_get_text(line, "text", ""), text))
			return true;
	}
	return false;
}

/* The lines that travelled with it: of kernels that no longer answer too. */
static void travelled(struct cli *cli, const char *carrier, struct tos_value *lines)
{
	struct tos_value *args = map_of("name", tos_text(carrier)), *outcome = NULL;
	char home[64];
	const struct tos_value *log;

	cli_home_of(carrier, home);
	tos_set(args, "wait_ms", tos_int(0));
	if (cli_connect_to(cli, home) < 0) {
		tos_value_free(args);
		return;
	}
	cli_ask(cli, home, "OUTCOME", args, &outcome);
	log = tos_get(outcome, "log");
	for (size_t i = 0; i < tos_len(log); i++) {
		const struct tos_value *l = tos_at(log, i);
		struct tos_value *line;

		if (said_already(lines, l))
			continue;
		line = map_of("wall", tos_value_copy(tos_at(l, 0)));

		tos_set(line, "kernel", tos_value_copy(tos_at(l, 1)));
		tos_set(line, "level", tos_text("carrier"));
		tos_set(line, "text", tos_value_copy(tos_at(l, 2)));
		tos_push(lines, line);
	}
	tos_value_free(outcome);
}

static int one_round(
	struct cli *cli, struct source *s, size_t n, const char *carrier, bool first)
{
	struct tos_value *lines = tos_array();
	size_t answered = 0;
	int rc = 0;

	for (size_t i = 0; i < n; i++) {
		int one = read_source(cli, &s[i], carrier, lines);

		answered += one == 0;
		if (one < 0 && !s[i].failed)
			fprintf(stderr, "tos log: %s: %s\n", s[i].kernel,
				err_show(one, &cli->em));
		s[i].failed = one < 0;
		rc = one < 0 ? one : rc;
		if (one == ERR_CLOSED)
			cli_disconnect(cli);
	}
	if (first && carrier)
		travelled(cli, carrier, lines);
	print_lines(cli, lines);
	tos_value_free(lines);
	return answered || n == 0 ? 0 : rc;
}

static int run_log(struct cli *cli)
{
	struct source *s = mem_zero(SOURCES_MOST * sizeof(*s));
	bool follow = cli_option(cli, "follow");
	char name[129];
	const char *carrier = cli->args.n_word ? name : NULL;
	size_t n = 0;
	int rc = carrier ? cli_carrier(cli, cli->args.word[0], name) : 0;

	rc = rc ? rc : find_sources(cli, carrier, s, &n);
	rc = rc ? rc : one_round(cli, s, n, carrier, true);
	if (follow)
		interrupt_catch();
	while (rc == 0 && follow && !interrupted()) {
		usleep(500000);
		if (carrier && find_sources(cli, carrier, s, &n) < 0)
			continue;
		one_round(cli, s, n, carrier, false);
	}
	free(s);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_log = {
	.name = "log",
	.words = "names",
	.args = "[CARRIER]",
	.summary = "Show the log of a kernel, or all that concerns a carrier",
	.about = "Without a carrier, the recent log lines of the asked kernel. With one, its "
		 "events from the kernels on its "
		 "trail that answer, and the lines of tos.log that travelled with it, in order "
		 "of time.",
	.examples = "tos log -f\tFollow the first kernel\n"
		    "tos log host0#42\tWhat happened to a carrier\n",
	.run = run_log,
	.max_args = 1,
	.options = { { "follow", 'f', NULL, "go on until Ctrl-C" } },
};
