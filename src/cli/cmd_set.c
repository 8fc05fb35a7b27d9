/* tos set, reload */
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"

static int run_set(struct cli *cli)
{
	const char *path = cli->args.word[0];
	bool drop = cli_option(cli, "default") != NULL;
	struct tos_value *args = tos_map(), *answer = NULL;
	int rc;

	if (drop == (cli->args.n_word == 2)) {
		tos_value_free(args);
		return cli_usage(cli, "it is 'tos set PATH VALUE' or 'tos set PATH --default'");
	}
	if (!drop && tos_set(args, "value", tos_text(cli->args.word[1])) < 0) {
		tos_value_free(args);
		return cli_usage(cli, "the value is no UTF-8");
	}
	rc = cli_act(cli, NULL, "set", path, args, &answer);
	if (rc == 0 && cli->json)
		print_json(answer);
	else if (rc == 0)
		printf("%s at %s is %s\n", path, tos_get_text(answer, "kernel", "?"),
			drop ? "as configured" : cli->args.word[1]);
	tos_value_free(answer);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_set = {
	.name = "set",
	.args = "PATH [VALUE]",
	.summary = "Set a property of a kernel or one of its extensions while it runs",
	.about = "Gives a property that 'tos get' lists another value, at once and until it is set again: it outlives restarts, and "
		 "counts more than tosd.conf. Values are written as there, 30s, 64M, true. 'tos get --json' says for each property "
		 "whether it can be set (read_only) and where its value comes from (origin). What a carrier was granted when it arrived "
		 "it keeps. It is a signed act, for which the firewall's action is set, and is audited.",
	.examples = "tos set /limits/hops 50 --kernel host1\tFor those that arrive from now on\n"
		    "tos set /Mobility/offer/timeout_ms 5000\tOf an extension\n"
		    "tos set /limits/hops --default\tAs tosd.conf says, or the default\n",
	.run = run_set,
	.min_args = 1,
	.max_args = 2,
	.words = "properties",
	.options = {
		{ "default", 0, NULL, "take the value back: what is configured holds again" },
		{ "as", 0, "PRINCIPAL", "who signs the act; default from domain.conf" },
	},
};

/* ---- reload */

static void print_changes(const struct tos_value *list, const char *what)
{
	for (size_t i = 0; i < tos_len(list); i++) {
		const struct tos_value *c = tos_at(list, i);
		const char *from = tos_get_text(c, "from", ""), *to = tos_get_text(c, "to", "");

		printf("%-8s %s", what, tos_get_text(c, "key", "?"));
		if (*from || *to)
			printf("  %s -> %s", *from ? from : "-", *to ? to : "-");
		putchar('\n');
	}
}

static int run_reload(struct cli *cli)
{
	struct tos_value *answer = NULL;
	int rc = cli_connect(cli);

	rc = rc ? rc : cli_act(cli, NULL, "reload", cli_kernel(cli), NULL, &answer);
	if (rc == 0 && cli->json)
		print_json(answer);
	else if (rc == 0) {
		const struct tos_value *changed = tos_get(answer, "changed"),
				       *kept = tos_get(answer, "kept");

		print_changes(changed, "changed");
		print_changes(kept, "restart");
		if (!tos_len(changed) && !tos_len(kept))
			printf("nothing has changed\n");
		fflush(stdout);
		if (tos_len(kept))
			fprintf(stderr,
				"tos reload: what says restart keeps its value until %s is started again\n",
				tos_get_text(answer, "kernel", "?"));
	}
	tos_value_free(answer);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_reload = {
	.name = "reload",
	.args = "",
	.summary = "Have a kernel read its configuration again",
	.about =
		"The file is checked first, in a sandbox, as at the start; a broken one changes nothing, and the command says what is "
		"wrong with it. Rules of the firewall, limits, peers, properties of extensions, the log's level and some times hold "
		"from then on; what was set by 'tos set' still counts more. What can't change while the kernel runs (its name, "
		"addresses, sandbox, which extensions there are) is listed as restart and keeps its value. SIGHUP to tosd, and "
		"systemctl reload, do the same and say it in the log.",
	.examples = "tos reload --kernel host1\tAfter its tosd.conf was changed\n",
	.run = run_reload,
	.options = { { "as", 0, "PRINCIPAL", "who signs the act; default from domain.conf" } },
};
