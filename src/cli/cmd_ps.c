/* tos ps, show, locate */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/bundle.h"

#define HOUR_MS ((int64_t)3600000)

/* ---- ps: residents and carriers of home, from each kernel of this TOS_HOME */

static struct tos_value *row_of(struct tos_value *rows, const char *name)
{
	for (size_t i = 0; i < tos_len(rows); i++)
		if (strcmp(tos_get_text(tos_at(rows, i), "name", ""), name) == 0)
			return tos_at_mut(rows, i);
	return NULL;
}

/* Two kernels may both speak of one carrier: the one where it is knows best. */
static void add_rows(struct tos_value *rows, const struct tos_value *more, const char *from)
{
	for (size_t i = 0; i < tos_len(more); i++) {
		const struct tos_value *row = tos_at(more, i);
		struct tos_value *have = row_of(rows, tos_get_text(row, "name", ""));

		if (!have)
			tos_push(rows, tos_value_copy(row));
		else if (strcmp(tos_get_text(row, "kernel", ""), from) == 0)
			for (size_t k = 0; k < tos_len(row); k++)
				tos_set_value(have, tos_value_copy(tos_key_at(row, k)),
					tos_value_copy(tos_value_at(row, k)));
	}
}

static int ask_ps(struct cli *cli, const char *kernel, bool all, struct tos_value *rows)
{
	struct tos_value *answer = NULL;
	int rc = cli_ask(cli, kernel, "PS", map_of("all", tos_bool(all)), &answer);

	if (rc == 0)
		add_rows(rows, answer, kernel ? kernel : cli_kernel(cli));
	tos_value_free(answer);
	return rc;
}

/* --all: every kernel of the domain; those that don't answer are named, not fatal. */
static int ps_domain(struct cli *cli, struct tos_value *rows)
{
	struct tos_value *list = NULL;
	int rc = cli_ask(cli, NULL, "KERNELS", NULL, &list);

	for (size_t i = 0; rc == 0 && i < tos_len(list); i++) {
		const char *name = tos_get_text(tos_at(list, i), "name", "");
		int one = cli_connect_to(cli, name);

		one = one ? one : ask_ps(cli, name, true, rows);
		if (one < 0)
			fprintf(stderr, "tos ps: %s: %s\n", name, err_show(one, &cli->em));
	}
	tos_value_free(list);
	return rc;
}

/* One of this TOS_HOME. What does not run has no carriers; of one that does not answer that is not
 * known. */
static bool ps_one(
	struct cli *cli, const char *kernel, struct tos_value *rows, struct buf *left_out)
{
	struct tos_connection *c;
	int rc = tos_connect(cli->home, kernel, cli_timeout(cli, 10000), &c, cli_err(cli));
	AUTOBUF calm = BUF_INIT;

	if (rc == 0) {
		cli_disconnect(cli);
		cli->connection = c;
		rc = ask_ps(cli, NULL, false, rows);
	}
	if (rc < 0 && rc != ERR_UNREACHABLE)
		buf_printf(left_out, "tos ps: %s is left out: %s\n", kernel,
			text_shown(&calm, err_show(rc, &cli->em)));
	return rc == 0;
}

static int ps_here(struct cli *cli, struct tos_value *rows)
{
	struct names all = { NULL, 0 };
	struct home h;
	size_t answered = 0;
	AUTOBUF left_out = BUF_INIT;
	int rc = home_open(cli->home, &h, &cli->em);

	if (cli->kernel)
		return rc ? rc : ask_ps(cli, NULL, false, rows);
	rc = rc ? rc : home_kernels(&h, &all);
	for (size_t i = 0; rc == 0 && i < all.n; i++)
		answered += ps_one(cli, all.v[i], rows, &left_out);
	names_fini(&all);
	if (answered)
		fputs(buf_cstr(&left_out), stderr);
	if (rc == 0 && !answered) {
		rc = cli_connect(cli);
		rc = rc ? rc : ask_ps(cli, NULL, false, rows);
	}
	return rc;
}

static void drop_old(struct tos_value *rows)
{
	int64_t now = clock_wall_ms();

	for (size_t i = tos_len(rows); i-- > 0;) {
		const struct tos_value *row = tos_at(rows, i);

		if (state_is_final(tos_get_text(row, "state", "")) &&
			tos_get_int(row, "since_ms", now) < now - HOUR_MS)
			tos_value_free(tos_take_at(rows, i));
	}
}

static void print_ps(const struct tos_value *rows)
{
	struct tos_value *shown = tos_array();

	for (size_t i = 0; i < tos_len(rows); i++) {
		const struct tos_value *r = tos_at(rows, i);
		struct tos_value *row = tos_value_copy(r);
		char age[16];

		age_text(tos_get_int(r, "since_ms", 0), clock_wall_ms(), age);
		tos_set(row, "since", tos_text(age));
		tos_set(row, "state",
			tos_textf("%s%s", tos_get_text(r, "state", "?"),
				tos_get_bool(r, "in_doubt", false) ? " (in doubt)" : ""));
		tos_push(shown, row);
	}
	table_print(shown,
		"name:NAME state:STATE kernel:KERNEL home:HOME owner:OWNER hop:HOP since:SINCE",
		stdout);
	tos_value_free(shown);
}

static int by_name(const void *a, const void *b)
{
	return names_compare(tos_get_text(*(const struct tos_value *const *)a, "name", ""),
		tos_get_text(*(const struct tos_value *const *)b, "name", ""));
}

/* host0#2 before host0#10. */
static struct tos_value *sorted(struct tos_value *rows)
{
	size_t n = tos_len(rows);
	struct tos_value **each = mem_zero((n + 1) * sizeof(*each)), *out = tos_array();

	while (tos_len(rows))
		each[tos_len(rows) - 1] = tos_take_at(rows, tos_len(rows) - 1);
	qsort(each, n, sizeof(*each), by_name);
	for (size_t i = 0; i < n; i++)
		tos_push(out, each[i]);
	free(each);
	tos_value_free(rows);
	return out;
}

static int ps_once(struct cli *cli, bool all)
{
	struct tos_value *rows = tos_array();
	int rc = all ? ps_domain(cli, rows) : ps_here(cli, rows);

	rows = sorted(rows);

	if (!all)
		drop_old(rows);
	if (rc == 0 && cli->json)
		print_json(rows);
	else if (rc == 0)
		print_ps(rows);
	tos_value_free(rows);
	return rc;
}

static int run_ps(struct cli *cli)
{
	bool all = cli_option(cli, "all"), watch = cli_option(cli, "watch");
	int rc;

	if (watch)
		interrupt_catch();
	do {
		if (watch && !cli->json && isatty(STDOUT_FILENO))
			fputs("\033[H\033[2J", stdout);
		rc = ps_once(cli, all);
		if (rc < 0 && watch)
			cli_disconnect(cli);
		fflush(stdout);
		if (watch)
			usleep(1000000);
	} while (watch && !interrupted() && (rc == 0 || rc == ERR_CLOSED));
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_ps = {
	.name = "ps",
	.args = "",
	.summary = "List carriers",
	.about = "Lists live carriers, and those that ended within the hour, whose home or place is a kernel of this TOS_HOME: "
		 "their state, where they are, their home, owner, number of moves, and since when. A state with (in "
		 "doubt) is that of a move whose end is not known; see tos-resolve(1).",
	.examples = "tos ps --watch\tAgain every second\n"
		    "tos ps --all --json\tOf the whole domain, for programs\n",
	.run = run_ps,
	.options = {
		{ "all", 'a', NULL, "of the whole domain, and those that ended long ago" },
		{ "watch", 'w', NULL, "print again every second until Ctrl-C" },
	},
};

/* ---- show */

static void print_map(const char *title, const struct tos_value *m)
{
	if (!tos_len(m))
		return;
	printf("%-12s", title);
	for (size_t i = 0; i < tos_len(m); i++) {
		printf("%s%s=", i ? " " : "", tos_as_text(tos_key_at(m, i), "?"));
		print_element(tos_value_at(m, i), stdout);
	}
	putchar('\n');
}

static void print_names(const char *title, const struct tos_value *names)
{
	if (!tos_len(names))
		return;
	printf("%-12s", title);
	for (size_t i = 0; i < tos_len(names); i++)
		printf("%s%s", i ? "," : "", tos_as_text(tos_at(names, i), "?"));
	putchar('\n');
}

/* Limits and usage are milliseconds and bytes on the wire; people write cpu=10s, memory=16M.
 * In the order of their table; what was not used is left out. */
static void print_amounts(const char *title, const struct tos_value *m, bool zeros)
{
	bool any = false;

	for (size_t i = 0; i < LIMIT_COUNT; i++) {
		const struct tos_value *v = tos_get(m, limit_names[i]);
		char text[64];

		if (tos_type(v) != TOS_INT || (!zeros && tos_as_int(v, 0) == 0))
			continue;
		limit_text(limit_names[i], tos_as_int(v, 0), text, sizeof(text));
		if (any)
			printf(" %s=%s", limit_names[i], text);
		else
			printf("%-12s%s=%s", title, limit_names[i], text);
		any = true;
	}
	if (any)
		putchar('\n');
}

static void print_field(const char *title, const struct tos_value *v)
{
	if (tos_type(v) == TOS_NIL || (tos_type(v) == TOS_BYTES))
		return;
	printf("%-12s", title);
	print_element(v, stdout);
	putchar('\n');
}

static void print_hex(const char *title, const struct tos_value *v)
{
	size_t n;
	const uint8_t *p = tos_as_bytes(v, &n);

	print_field(title, v); /* a text is hexadecimal already */
	if (tos_type(v) != TOS_BYTES)
		return;
	printf("%-12s", title);
	for (size_t i = 0; i < n; i++)
		printf("%02x", p[i]);
	putchar('\n');
}

static void print_fault(const struct tos_value *fault)
{
	AUTOBUF calm = BUF_INIT;

	printf("\nfault       %s at %s: %s\n", tos_get_text(fault, "code", "?"),
		tos_get_text(fault, "kernel", "?"),
		text_shown(&calm, tos_get_text(fault, "text", "")));
	fputs(text_shown(&calm, tos_get_text(fault, "traceback", "")), stdout);
}

static void print_show(const struct tos_value *v)
{
	static const char *const plain[] = { "name", "state", "kernel", "home", "owner",
		"author", "trust", "hop", "incarnation", "departures", "wanted", "note" };
	const struct tos_value *fault = tos_get(v, "fault"), *path = tos_get(v, "path");
	struct tos_value *trail = tos_array();
	char age[16];

	for (size_t i = 0; i < ARRAY_LEN(plain); i++)
		if (*tos_get_text(v, plain[i], "-")) /* an empty text says nothing */
			print_field(plain[i], tos_get(v, plain[i]));
	if (tos_get_bool(v, "in_doubt", false))
		puts("in doubt    yes; 'tos resolve' has it settled");
	age_text(tos_get_int(v, "since_ms", 0), clock_wall_ms(), age);
	printf("%-12s%s\n", "since", age);
	print_hex("id", tos_get(v, "id"));
	print_hex("code", tos_get(v, "code"));
	printf("%-12s", "path left");
	for (size_t i = 0; i < tos_len(path); i++)
		printf("%s%s", i ? "," : "", tos_as_text(tos_at(path, i), "?"));
	puts(tos_len(path) ? "" : "-");
	print_map("folders", tos_get(v, "folders"));
	print_names("sealed", tos_get(v, "sealed"));
	print_field("parent", tos_get(v, "parent"));
	print_names("clones", tos_get(v, "clones"));
	print_names("append only", tos_get(v, "append_only"));
	for (size_t i = 0; i < tos_len(tos_get(v, "automata")); i++) {
		const struct tos_value *a = tos_at(tos_get(v, "automata"), i);

		printf("%-12sby %s, state %s\n", "automaton", tos_get_text(a, "by", "?"),
			tos_get_text(a, "state", "?"));
	}
	print_amounts("limits", tos_get(v, "limits"), true);
	print_amounts("usage", tos_get(v, "usage"), false);
	for (size_t i = 0; i < tos_len(tos_get(v, "trail")); i++) {
		struct tos_value *t = tos_value_copy(tos_at(tos_get(v, "trail"), i));
		char when[CLOCK_TEXT_BYTES];
		AUTOBUF error = BUF_INIT;

		trail_error(t, &error);
		if (error.len)
			tos_set(t, "error", tos_text(buf_cstr(&error)));
		tos_set(t, "at",
			tos_text(clock_text(
				tos_get_int(t, "wall", tos_get_int(t, "time", 0)), when)));
		tos_push(trail, t);
	}
	if (tos_len(trail)) {
		puts("\ntrail");
		table_print(trail, "at:AT kernel:KERNEL event:EVENT error:ERROR", stdout);
	}
	if (tos_type(fault) == TOS_MAP)
		print_fault(fault);
	tos_value_free(trail);
}

static int ask_home(struct cli *cli, const char *word, const char *verb, struct tos_value **out)
{
	char name[129], kernel[64];
	int rc = cli_carrier(cli, word, name);

	if (rc < 0)
		return rc;
	cli_home_of(name, kernel);
	return cli_ask(cli, kernel, verb, map_of("name", tos_text(name)), out);
}

static int run_show(struct cli *cli)
{
	struct tos_value *all = tos_array();
	int code = EXIT_DONE;

	for (size_t i = 0; i < cli->args.n_word; i++) {
		struct tos_value *v = NULL;
		int rc = ask_home(cli, cli->args.word[i], "SHOW", &v);

		if (rc < 0)
			code = cli_fail(cli, rc);
		else if (cli->json)
			tos_push(all, STEAL(v));
		else {
			if (i)
				putchar('\n');
			print_show(v);
		}
		tos_value_free(v);
	}
	if (cli->json && tos_len(all))
		print_json(cli->args.n_word == 1 ? tos_at(all, 0) : all);
	tos_value_free(all);
	return code;
}

const struct command command_show = {
	.name = "show",
	.words = "names",
	.args = "CARRIER...",
	.summary = "Show all that is known of a carrier",
	.about = "Asks the carrier's home, which answers also when the carrier's place is "
		 "down: state, where it is, its trail, "
		 "limits and what it used of them, folders with their sizes, and a fault with "
		 "its traceback.",
	.examples = "tos show host0#42\tOne carrier\n",
	.run = run_show,
	.min_args = 1,
	.max_args = ARGS_ANY,
};

/* ---- locate */

static int run_locate(struct cli *cli)
{
	struct tos_value *rows = tos_array();
	int code = EXIT_DONE;

	for (size_t i = 0; i < cli->args.n_word; i++) {
		struct tos_value *v = NULL;
		int rc = ask_home(cli, cli->args.word[i], "LOCATE", &v);

		if (rc < 0)
			code = cli_fail(cli, rc);
		else
			tos_push(rows, v);
	}
	if (tos_len(rows) && cli->json)
		print_json(rows);
	else if (tos_len(rows))
		table_print(rows, "name:NAME kernel:KERNEL state:STATE home:HOME", stdout);
	tos_value_free(rows);
	return code;
}

const struct command command_locate = {
	.name = "locate",
	.words = "names",
	.args = "CARRIER...",
	.summary = "Say where carriers are",
	.about = "Asks the home of each carrier where it was last heard of.",
	.examples = "tos locate host0#42 host1#7\tTwo of them\n",
	.run = run_locate,
	.min_args = 1,
	.max_args = ARGS_ANY,
};
