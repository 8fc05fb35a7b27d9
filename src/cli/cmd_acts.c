/* tos suspend, resume, kill, retry, resolve: signed acts on carriers */
#include <string.h>
#include <unistd.h>

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
	rc = cli_act(cli, kernel, act, name,
		cli_option(cli, "family") ? map_of("family", tos_bool(true)) : NULL, &answer);
	if (rc < 0) /* most answers begin with it */
		return strstr(cli->em.text, name) ? rc : err_wrap(&cli->em, rc, "%s", name);
	if (tos_get(answer, "members"))
		tos_set(answer, "state",
			tos_textf(
				"%lld carriers", (long long)tos_get_int(answer, "members", 0)));
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
		return cli_usage(
			cli, "--all takes back tos stop --all; name no carriers with it");
	if (!all && !cli->args.n_word)
		return cli_usage(cli, "which carriers, or --all after tos stop --all?");
	return all ? stop_resume(cli) : run_act(cli);
}

#define FAMILY                                                                                 \
	{                                                                                      \
		"family", 0, NULL, "its clones, too, and those that are made later"            \
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
	.options = { FAMILY, AS },
};

const struct command command_resume = {
	.name = "resume",
	.words = "names",
	.args = "CARRIER... | --all",
	.summary = "Have suspended carriers go on",
	.about =
		"Takes back tos suspend. With --all it takes back tos stop --all: the kernels of this TOS_HOME may run again, "
		"and tos up starts them.",
	.examples = "tos resume host0#42\tIt goes on\n"
		    "tos resume --all\tAfter tos stop --all\n",
	.run = run_resume,
	.max_args = ARGS_ANY,
	.options = { { "all", 0, NULL, "let everything that tos stop --all ended run again" },
		FAMILY, AS },
};

const struct command command_kill = {
	.name = "kill",
	.words = "names",
	.args = "CARRIER...",
	.summary = "End carriers, wherever they are",
	.about = "Records at the carrier's home that it is to be killed. It is ended where it "
		 "runs, at once if that can be "
		 "reached, otherwise when it next reports or moves. Its outcome is killed.",
	.examples = "tos kill 42\tBy number\n"
		    "tos kill host0#42 --family\tAnd all its clones\n",
	.run = run_act,
	.min_args = 1,
	.max_args = ARGS_ANY,
	.options = { FAMILY, AS },
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

/* ---- resolve --force */

static const char *const force_risk =
	"Whether %s runs somewhere else nobody has said. Forced, it goes on at %s with a higher\n"
	"incarnation: until the kernels meet there may be two of it, and what the other one does\n"
	"stays done; when they meet, the lower incarnation ends.\n";

/* A row of a kernel that holds it without knowing whether it may run. */
static bool held_in_doubt(struct cli *cli, const char *kernel, const char *name, int64_t *count)
{
	struct tos_value *row = NULL;
	bool yes = false;

	if (cli_connect_to(cli, kernel) == 0 &&
		cli_ask(cli, kernel, "SHOW", map_of("name", tos_text(name)), &row) == 0) {
		yes = tos_get_bool(row, "in_doubt", false) && tos_get(row, "incarnation") &&
		      strcmp(tos_get_text(row, "kernel", ""), kernel) == 0;
		*count = tos_get_int(row, "incarnation", 0);
	}
	tos_value_free(row);
	return yes;
}

/* Its home may not be there to say who holds it: every kernel is asked. */
static int find_holder(struct cli *cli, const char *name, char kernel[64], int64_t *count)
{
	struct tos_value *list = NULL;
	bool found = false;
	int rc;

	if (cli->kernel) {
		snprintf(kernel, 64, "%s", cli->kernel);
		found = held_in_doubt(cli, kernel, name, count);
	} else {
		rc = cli_ask(cli, NULL, "KERNELS", NULL, &list);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < tos_len(list) && !found; i++) {
			snprintf(kernel, 64, "%s", tos_get_text(tos_at(list, i), "name", ""));
			found = held_in_doubt(cli, kernel, name, count);
		}
		tos_value_free(list);
	}
	return found ? 0
		     : err_set(&cli->em, ERR_NOT_FOUND,
			       "no kernel that answers holds %s in doubt; --kernel names one",
			       name);
}

static bool confirmed(const struct cli *cli, const char *name, const char *kernel)
{
	char line[16] = "";

	if (cli_option(cli, "yes"))
		return true;
	fprintf(stderr, force_risk, name, kernel);
	if (!isatty(0)) {
		fputs("Say --yes if that is what you want.\n", stderr);
		return false;
	}
	fputs("Go on? (yes/no) ", stderr);
	return fgets(line, sizeof(line), stdin) && strcmp(line, "yes\n") == 0;
}

static int force_one(struct cli *cli, const char *name, struct tos_value *rows)
{
	struct tos_value *answer = NULL, *args;
	char kernel[64];
	int64_t count = 0;
	int rc = find_holder(cli, name, kernel, &count);

	if (rc < 0)
		return rc;
	if (!confirmed(cli, name, kernel))
		return err_set(&cli->em, ERR_CANCELLED, "%s stays in doubt", name);
	args = map_of("force", tos_bool(true));
	tos_set(args, "count", tos_int(count + 1));
	rc = cli_connect_to(cli, kernel);
	if (rc < 0)
		tos_value_free(args);
	rc = rc ? rc : cli_act(cli, kernel, "resolve", name, args, &answer);
	if (rc < 0)
		return err_wrap(&cli->em, rc, "%s", name);
	tos_set(answer, "asked", tos_text("resolve --force"));
	tos_set(answer, "kernel", tos_text(kernel));
	return tos_push(rows, answer);
}

static int run_resolve_tx(struct cli *cli, const char *tx)
{
	const char *decision = cli->args.n_word == 1 ? cli->args.word[0] : "";
	struct tos_value *rows;
	int rc;

	if (strcmp(decision, "commit") != 0 && strcmp(decision, "abort") != 0)
		return cli_usage(cli, "--tx TRANSACTION is followed by commit or abort");
	rows = tos_array();
	rc = resolve_tx(cli, tx, decision, rows);
	print_rows(cli, rows, "name:TRANSACTION asked:ASKED kernel:KERNEL state:STATE");
	tos_value_free(rows);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

static int run_resolve(struct cli *cli)
{
	const char *dead = cli_option(cli, "dead"), *tx = cli_option(cli, "tx");
	struct tos_value *rows;
	int code = EXIT_DONE;

	if (dead && cli_option(cli, "force"))
		return cli_usage(cli, "--force is about carriers, --dead about a kernel");
	if (tx)
		return run_resolve_tx(cli, tx);
	if (!dead && !cli->args.n_word)
		return cli_usage(cli, "which carrier in doubt, or --dead which kernel?");
	rows = tos_array();
	if (dead)
		code = declare_dead(cli, dead, rows);
	for (size_t i = 0; i < cli->args.n_word; i++) {
		int rc = cli_option(cli, "force") ? force_one(cli, cli->args.word[i], rows)
						  : resolve_one(cli, cli->args.word[i], rows);

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
	.args = "[CARRIER]... | --tx TRANSACTION commit|abort",
	.summary = "Settle moves and transactions whose end is not known",
	.about =
		"When a link or a kernel fails at the moment of a hand-over, the source keeps "
		"its copy in doubt until the "
		"destination answers. tos resolve has the source ask the carrier's home, "
		"which grants the copy to it "
		"if that cannot make two of it.\n\n"
		"With --dead an operator declares that a kernel is gone for good, so that "
		"copies which may have been "
		"there count as lost and the next older ones may run. Should that kernel come "
		"back, its copies give "
		"way; what they did meanwhile stays done.\n\n"
		"With --force the holder goes on without asking the home, for when that is gone "
		"too; also with one that is held back because its store was restored. Nobody "
		"can know then that there is no other copy: until the kernels meet two may run, "
		"after that the one with the higher incarnation. It must be confirmed, on the "
		"terminal or by --yes; name the carrier in full.\n\n"
		"With --tx whoever has voted yes in that transaction and does not know the decision commits or "
		"aborts at your word, for when its coordinator will not come back or its store was restored "
		"(tos commit list shows who is in doubt). What the coordinator has decided may be another "
		"thing. It must be confirmed, too.",
	.examples =
		"tos resolve host0#42\tAsk the home of one carrier\n"
		"tos resolve --dead host2\tThat host burnt down\n"
		"tos resolve --force host0#42 --yes\tAnd its home with it\n"
		"tos resolve --tx host1/01a2022fce6538077c78 abort\tIts coordinator will not come back\n",
	.run = run_resolve,
	.max_args = ARGS_ANY,
	.options = { { "dead", 0, "KERNEL", "declare that this kernel is gone for good" },
		{ "tx", 0, "TRANSACTION",
			"settle a transaction among carriers: commit or abort" },
		{ "force", 0, NULL, "go on without the home's word; two copies may run" },
		{ "yes", 0, NULL, "the risk of --force or --tx is understood" }, AS },
};
