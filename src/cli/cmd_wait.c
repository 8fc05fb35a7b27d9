/* tos wait */
#include "cli/cli.h"
#include "cli/commands.h"

static int run_wait(struct cli *cli)
{
	int worst = EXIT_DONE;

	for (size_t i = 0; i < cli->args.n_word; i++) {
		char name[129];
		int code, rc = cli_carrier(cli, cli->args.word[i], name);

		if (rc == 0 && cli->args.n_word > 1 && !cli->json)
			printf("%s%s\n", i ? "\n" : "", name);
		fflush(stdout);
		code = rc < 0 ? cli_fail(cli, rc)
			      : outcome_wait(cli, name, cli_option(cli, "follow"),
					cli_option(cli, "quiet"));
		if (code == EXIT_DETACHED)
			return code;
		worst = code ? code : worst;
	}
	return worst;
}

const struct command command_wait = {
	.name = "wait",
	.words = "names",
	.args = "CARRIER...",
	.summary = "Wait until carriers have ended and print their outcomes",
	.about = "Waits for each carrier in turn and prints what it brought home: a row a kernel from folder RESULTS, "
		 "the trail, and the fault if it had one. Whoever launched it may have gone away meanwhile. Without "
		 "--timeout it waits for ever. With --family it waits for its clones, too, and prints what all of them "
		 "brought home as one table. The exit code is 0 if all of them finished. Ctrl-C ends the waiting, "
		 "not the carrier.",
	.examples = "tos wait host0#42\tOne of them\n"
		    "tos wait host0#42 --family\tAnd all its clones\n"
		    "tos wait 42 43 --timeout 5m\tBy number, where that is unambiguous\n",
	.run = run_wait,
	.min_args = 1,
	.max_args = ARGS_ANY,
	.options = {
		{ "follow", 'f', NULL, "show its log lines and states on standard error as they come" },
		{ "family", 0, NULL, "its clones, too: one table of what they all brought home" },
		{ "quiet", 'q', NULL, "print no outcome, only exit with its code" },
	},
};
