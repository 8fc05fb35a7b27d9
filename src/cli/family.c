/* What a carrier that cloned has brought home: its own outcome and those of all that came of it, as
 * one table. Shared by launch and wait. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"

#define SLICE_MS 1000 /* how late Ctrl-C may be noticed */

/* Every member has ended, and the home knows them all. */
static int wait_all(struct cli *cli, const char *kernel, const char *name, int64_t deadline,
	struct tos_value **out)
{
	for (;;) {
		struct tos_value *args = map_of("name", tos_text(name));
		int rc;

		if (interrupted())
			return ERR_CANCELLED;
		tos_set(args, "wait_ms", tos_int(SLICE_MS));
		rc = cli_ask(cli, kernel, "FAMILY", args, out);
		if (rc != ERR_TIMEOUT)
			return rc;
		if (deadline && clock_ms() >= deadline)
			return rc;
	}
}

/* The members' outcomes, in the order of their names. */
static int outcomes(struct cli *cli, const char *kernel, const struct tos_value *members,
	struct tos_value *out)
{
	int rc = 0;

	for (size_t i = 0; i < tos_len(members) && rc == 0; i++) {
		const char *name = tos_get_text(tos_at(members, i), "name", "");
		struct tos_value *args = map_of("name", tos_text(name)), *one = NULL;

		tos_set(args, "wait_ms", tos_int(SLICE_MS));
		rc = cli_ask(cli, kernel, "OUTCOME", args, &one);
		if (rc == 0)
			rc = tos_push(out, one);
	}
	return rc;
}

static void add_rows(struct tos_value *rows, const struct tos_value *outcome)
{
	const struct tos_value *results = tos_get(tos_get(outcome, "briefcase"), "RESULTS");

	for (size_t i = 0; i < tos_len(results); i++) {
		struct tos_value *row =
			tos_type(tos_at(results, i)) == TOS_MAP
				? tos_value_copy(tos_at(results, i))
				: map_of("result", tos_value_copy(tos_at(results, i)));

		tos_set(row, "carrier", tos_text(tos_get_text(outcome, "name", "?")));
		tos_push(rows, row);
	}
}

static void print_family(const struct tos_value *all)
{
	struct tos_value *rows = tos_array(), *members = tos_array();

	for (size_t i = 0; i < tos_len(all); i++) {
		const struct tos_value *o = tos_at(all, i);
		struct tos_value *m = map_of("name", tos_text(tos_get_text(o, "name", "?")));
		const struct tos_value *fault = tos_get(o, "fault");

		add_rows(rows, o);
		tos_set(m, "state", tos_text(tos_get_text(o, "state", "?")));
		tos_set(m, "fault",
			tos_text(tos_type(fault) == TOS_MAP ? tos_get_text(fault, "text", "")
							    : ""));
		tos_push(members, m);
	}
	if (tos_len(rows)) {
		table_print(rows, NULL, stdout);
		putchar('\n');
	}
	table_print(members, "name:CARRIER state:STATE fault:FAULT", stdout);
	tos_value_free(rows);
	tos_value_free(members);
}

int family_wait(struct cli *cli, const char *name, int64_t deadline, bool quiet)
{
	struct tos_value *m = NULL, *all = tos_array();
	char kernel[64];
	int rc, code = EXIT_DONE;

	cli_home_of(name, kernel);
	rc = cli_connect_to(cli, kernel);
	rc = rc ? rc : wait_all(cli, kernel, name, deadline, &m);
	rc = rc ? rc : outcomes(cli, kernel, tos_get(m, "members"), all);
	if (rc == ERR_CANCELLED) {
		fprintf(stderr, "still running: tos wait --family %s\n", name);
		code = EXIT_DETACHED;
	} else if (rc < 0) {
		code = cli_fail(cli, rc);
	}
	for (size_t i = 0; i < tos_len(all) && rc == 0; i++)
		if (strcmp(tos_get_text(tos_at(all, i), "state", ""), "finished") != 0)
			code = EXIT_FAILED;
	if (rc == 0 && !quiet && cli->json) {
		tos_set(m, "members", all);
		all = NULL;
		print_json(m);
	} else if (rc == 0 && !quiet) {
		print_family(all);
	}
	fflush(stdout);
	tos_value_free(all);
	tos_value_free(m);
	return code;
}
