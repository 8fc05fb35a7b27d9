/* tos suspend, resume, kill, retry, resolve: signed acts on carriers */
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"

static void print_rows(const struct cli *cli, const struct tos_value *rows, const char *columns)
{
	if (!tos_len(rows))
		return;
	if (cli->json)
		print_json(rows);
	else
		table_print(rows, columns, stdout);
}

static int act_on(struct cli *cli, const char *act, const char *word, struct tos_value *rows)
{
	struct tos_value *answer = NULL;
	char name[129], kernel[64];
	int rc = cli_carrier(cli, word, name);

	if (rc < 0)
		return rc;
	cli_home_of(name, kernel);
	rc = cli_act(cli, kernel, act, name, NULL, &answer);
	if (rc < 0)
		return err_wrap(&cli->em, rc, "%s", name);
	tos_set(answer, "asked", tos_text(act)); /* its state is that of the moment of asking */
	return tos_push(rows, answer);
}

static int run_act(struct cli *cli)
{
	struct tos_value *rows = tos_array();
	int code = EXIT_DONE;

	for (size_t i = 0; i < cli->args.n_word;
		i++) { /* one that fails keeps none of the others */
		int rc = act_on(cli, cli->args.command->name, cli->args.word[i], rows);

		if (rc < 0)
			code = cli_fail(cli, rc);
	}
	print_rows(cli, rows, "name:NAME asked:ASKED state:WAS");
	tos_value_free(rows);
	return code;
}

static int run_resume(struct cli *cli)
{
	bool all = cli_option(cli, "all") != NULL;

	if (all && cli->args.n_word)
		return cli_usage(cli, "--all takes back tos stop --all; name no carriers with it");
	if (!all && !cli->args.n_word)
		return cli_usage(cli, "which carriers, or --all after tos stop --all?");
	return all ? stop_resume(cli) : run_act(cli);
}

#define AS                                                                                     \
	{                                                                                      \
		"as", 0, "PRINCIPAL", "who signs the act; default from domain.conf"            \
	}

const struct command command_suspend = {
	.name = "suspend",
	.words = "names",
	.args = "CARRIER...",
	.summary = "Have carriers stop where they are until they are resumed",
	.about = "Records the wish at the carrier's home, which passes it on to where the "
		 "carrier is; a carrier on its way "
		 "stops at its next kernel.",
	.examples = "tos suspend host0#42\tUntil tos resume\n",
	.run = run_act,
	.min_args = 1,
	.max_args = ARGS_ANY,
	.options = { AS },
};

const struct command command_resume = {
	.name = "resume",
	.words = "names",
	.args = "CARRIER... | --all",
	.summary = "Have suspended carriers go on",
	.about = "Takes back tos suspend. With --all it takes back tos stop --all: the kernels of this TOS_HOME may run again, "
		 "and tos up starts them.",
	.examples = "tos resume host0#42\tIt goes on\n"
		    "tos resume --all\tAfter tos stop --all\n",
	.run = run_resume,
	.max_args = ARGS_ANY,
	.options = { { "all", 0, NULL, "let everything that tos stop --all ended run again" }, AS },
};

const struct command command_kill = {
	.name = "kill",
	.words = "names",
	.args = "CARRIER...",
	.summary = "End carriers, wherever they are",
	.about = "Records at the carrier's home that it is to be killed. It is ended where it "
		 "runs, at once if that can be "
		 "reached, otherwise when it next reports or moves. Its outcome is killed.",
	.examples = "tos kill 42\tBy number\n",
	.run = run_act,
	.min_args = 1,
	.max_args = ARGS_ANY,
	.options = { AS },
};

const struct command command_retry = {
	.name = "retry",
	.words = "names",
	.args = "CARRIER...",
	.summary = "Have faulted carriers run again where they failed",
	.about = "Starts begin again at the kernel where the carrier faulted, with the state "
		 "that it arrived with. Its "
		 "incarnation is raised, so requests to extensions count as new.",
	.examples = "tos retry host0#42\tWhen the cause is mended\n",
	.run = run_act,
	.min_args = 1,
	.max_args = ARGS_ANY,
	.options = { AS },
};

/* ---- resolve */

/* The kernel that holds the copy in doubt is named by the home. */
static int resolve_one(struct cli *cli, const char *word, struct tos_value *rows)
{
	struct tos_value *row = NULL, *answer = NULL;
	char name[129], kernel[64];
	int rc = cli_carrier(cli, word, name);

	if (rc < 0)
		return rc;
	cli_home_of(name, kernel);
	rc = cli_ask(cli, kernel, "SHOW", map_of("name", tos_text(name)), &row);
	if (rc == 0 && !tos_get_bool(row, "in_doubt", false) &&
		state_is_final(tos_get_text(row, "state", "")))
		rc = err_set(&cli->em, ERR_STATE, "%s is %s; no move of it is in doubt", name,
			tos_get_text(row, "state", "?"));
	else if (rc == 0 && !tos_get_bool(row, "in_doubt", false))
		fprintf(stderr,
			"tos resolve: %s is %s and not known to be in doubt; asking all the "
			"same\n",
			name, tos_get_text(row, "state", "?"));
	if (rc == 0)
		snprintf(kernel, sizeof(kernel), "%s", tos_get_text(row, "kernel", kernel));
	tos_value_free(row);
	rc = rc ? rc : cli_connect_to(cli, kernel);
	rc = rc ? rc : cli_act(cli, kernel, "resolve", name, NULL, &answer);
	if (rc < 0)
		return err_wrap(&cli->em, rc, "%s", name);
	tos_set(answer, "asked", tos_text("resolve"));
	return tos_push(rows, answer);
}

/* Every kernel may hold moves towards the dead one; each is told, and those that can't be
 * reached are named. */
static int declare_at(
	struct cli *cli, const char *kernel, const char *dead, struct tos_value *rows)
{
	struct tos_value *answer = NULL, *row;
	int rc = cli_connect_to(cli, kernel);

	rc = rc ? rc : cli_act(cli, kernel, "declare-dead", dead, NULL, &answer);
	if (rc < 0) {
		err_wrap(&cli->em, rc, "%s was not told", kernel);
		return cli_fail(cli, rc);
	}
	row = map_of("name", tos_text(kernel));
	tos_set(row, "asked", tos_text("declare-dead"));
	tos_set(row, "state",
		tos_textf("told, %zu carriers", tos_len(tos_get(answer, "carriers"))));
	tos_push(rows, row);
	tos_value_free(answer);
	return EXIT_DONE;
}

static int declare_dead(struct cli *cli, const char *dead, struct tos_value *rows)
{
	struct tos_value *list = NULL;
	int code = EXIT_DONE, rc = cli_ask(cli, NULL, "KERNELS", NULL, &list);

	if (rc < 0)
		return cli_fail(cli, rc);
	for (size_t i = 0; i < tos_len(list); i++) {
		const char *kernel = tos_get_text(tos_at(list, i), "name", "");

		if (*kernel && strcmp(kernel, dead) != 0) {
			int one = declare_at(cli, kernel, dead, rows);

			code = one ? one : code;
		}
	}
	tos_value_free(list);
	return code;
}

static int run_resolve(struct cli *cli)
{
	const char *dead = cli_option(cli, "dead");
	struct tos_value *rows;
	int code = EXIT_DONE;

	if (!dead && !cli->args.n_word)
		return cli_usage(cli, "which carrier in doubt, or --dead which kernel?");
	rows = tos_array();
	if (dead)
		code = declare_dead(cli, dead, rows);
	for (size_t i = 0; i < cli->args.n_word; i++) {
		int rc = resolve_one(cli, cli->args.word[i], rows);

		if (rc < 0)
			code = cli_fail(cli, rc);
	}
	print_rows(cli, rows, "name:NAME asked:ASKED state:STATE");
	tos_value_free(rows);
	return code;
}

const struct command command_resolve = {
	.name = "resolve",
	.words = "names",
	.args = "[CARRIER]...",
	.summary = "Settle moves whose end is not known",
	.about = "When a link or a kernel fails at the moment of a hand-over, the source keeps "
		 "its copy in doubt until the "
		 "destination answers. tos resolve has the source ask the carrier's home, "
		 "which grants the copy to it "
		 "if that cannot make two of it.\n\n"
		 "With --dead an operator declares that a kernel is gone for good, so that "
		 "copies which may have been "
		 "there count as lost and the next older ones may run. Should that kernel come "
		 "back, its copies give "
		 "way; what they did meanwhile stays done.",
	.examples = "tos resolve host0#42\tAsk the home of one carrier\n"
		    "tos resolve --dead host2\tThat host burnt down\n",
	.run = run_resolve,
	.max_args = ARGS_ANY,
	.options = { { "dead", 0, "KERNEL", "declare that this kernel is gone for good" }, AS },
};
