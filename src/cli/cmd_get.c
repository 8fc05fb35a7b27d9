/* tos get, metrics, audit */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"

static int run_get(struct cli *cli)
{
	const char *path = cli->args.n_word ? cli->args.word[0] : "/";
	struct tos_value *list = NULL;
	int rc = cli_ask(cli, NULL, "GET", map_of("path", tos_text(path)), &list);

	if (rc == 0 && cli->json)
		print_json(list);
	else if (rc == 0 && tos_len(list) == 1 && cli_option(cli, "value")) {
		print_element(tos_get(tos_at(list, 0), "value"), stdout);
		putchar('\n');
	} else if (rc == 0 && tos_len(list) == 0)
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"there is no property %s; 'tos get' lists all", path);
	else if (rc == 0)
		table_print(list, "path:PROPERTY value:VALUE unit:UNIT doc:MEANING", stdout);
	tos_value_free(list);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_get = {
	.name = "get",
	.args = "[PATH]",
	.summary = "List properties of a kernel and its extensions",
	.about = "Lists the typed properties at or below a path, with value, unit and meaning; "
		 "with --json also type and "
		 "range.",
	.examples = "tos get /Mobility\tOf one extension\n",
	.run = run_get,
	.max_args = 1,
	.words = "properties",
	.options = { { "value", 0, NULL,
		"print nothing but the value, where the path names one property" } },
};

static int run_metrics(struct cli *cli)
{
	struct tos_value *v = NULL;
	int rc = cli_ask(cli, NULL, "METRICS", NULL, &v);

	if (rc == 0 && cli->json)
		print_json(v);
	else if (rc == 0)
		fputs(tos_get_text(v, "text", ""), stdout);
	tos_value_free(v);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_metrics = {
	.name = "metrics",
	.args = "",
	.summary = "Print a kernel's counters in Prometheus text format",
	.about = "Prints every counter and gauge of the asked kernel, with help text, in the "
		 "Prometheus exposition format, for "
		 "a textfile collector for instance.",
	.examples = "tos metrics --kernel host1\tOf one kernel\n",
	.run = run_metrics,
};

/* ---- audit */

static void print_event(const struct cli *cli, const struct tos_value *e)
{
	char when[CLOCK_TEXT_BYTES];

	if (cli->json) {
		char *json = tos_to_json(e, 0);

		puts(json ? json : "null");
		free(json);
		return;
	}
	printf("%6lld %s %s", (long long)tos_get_int(e, "seq", 0),
		clock_text(tos_get_int(e, "wall", 0), when), tos_get_text(e, "event", "?"));
	for (size_t i = 0; i < tos_len(e); i++) {
		const char *key = tos_as_text(tos_key_at(e, i), "");

		if (strcmp(key, "seq") == 0 || strcmp(key, "wall") == 0 ||
			strcmp(key, "event") == 0 || strcmp(key, "chain") == 0)
			continue;
		printf(" %s=", key);
		print_element(tos_value_at(e, i), stdout);
	}
	putchar('\n');
}

static int run_audit(struct cli *cli)
{
	const char *after = cli_option(cli, "after"), *most = cli_option(cli, "most");
	int64_t from = 0, n = 1000;
	struct tos_value *args, *list = NULL;
	int rc;

	if ((after && text_int(after, 0, INT64_MAX, &from) < 0) ||
		(most && text_int(most, 1, 100000, &n) < 0))
		return cli_usage(cli, "--after and --most take whole numbers");
	args = map_of("after", tos_int(from));
	tos_set(args, "most", tos_int(n));
	rc = cli_ask(cli, NULL, "AUDIT", args, &list);
	for (size_t i = 0; rc == 0 && i < tos_len(list); i++)
		print_event(cli, tos_at(list, i));
	tos_value_free(list);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_audit = {
	.name = "audit",
	.args = "",
	.summary = "Print a kernel's audit trail",
	.about = "Prints the entries of the asked kernel's audit trail: denials, launches, arrivals, departures, acts, "
		 "privileged calls. With --json one object to a line, with the hash that chains it to the one "
		 "before.",
	.examples = "tos audit --after 1200\tWhat came since\n",
	.run = run_audit,
	.options = {
		{ "after", 0, "NUMBER", "only entries behind this one" },
		{ "most", 0, "NUMBER", "as many at most, default 1000" },
	},
};
