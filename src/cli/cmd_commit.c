/* tos commit list, show; tos resolve --tx: transactions among carriers */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/commands.h"

#define ASK_MS 10000

static int ask_commit(struct cli *cli, const char *kernel, const char *verb,
	struct tos_value *args, struct tos_value **out)
{
	struct tos_value *elements = tos_array(), *answer = NULL;
	char dest[96], folder[129];
	int rc;

	if (args)
		tos_push(elements, args);
	snprintf(dest, sizeof(dest), "%s/Commit", kernel);
	rc = cli_connect(cli);
	rc = rc ? rc
		: tos_ask(cli->connection, dest, verb, elements, cli_timeout(cli, ASK_MS),
			  folder, &answer, cli_err(cli));
	if (rc == 0)
		*out = tos_take_at(answer, 0);
	tos_value_free(elements);
	tos_value_free(answer);
	return rc;
}

/* What is over is not shown unless it is asked for; what an operator has to look at is. */
static bool open_row(const struct tos_value *row)
{
	const char *state = tos_get_text(row, "state", "");
	bool over = strcmp(state, "aborted") == 0 ||
		    (strcmp(state, "committed") == 0 && tos_get_bool(row, "done", false));

	return !over || tos_get_bool(row, "mixed", false);
}

static void rows_of(struct cli *cli, const char *kernel, bool all, struct tos_value *rows)
{
	struct tos_value *some = NULL;
	int rc = ask_commit(cli, kernel, "LIST", NULL, &some);

	if (rc < 0) {
		fprintf(stderr, "tos commit: %s: %s\n", kernel, err_show(rc, &cli->em));
		cli->em.text[0] = '\0';
	}
	for (size_t i = 0; rc == 0 && i < tos_len(some); i++)
		if (all || open_row(tos_at(some, i)))
			tos_push(rows, tos_value_copy(tos_at(some, i)));
	tos_value_free(some);
}

/* Of every kernel, or of --kernel. */
static int list(struct cli *cli, bool all, struct tos_value *rows)
{
	struct tos_value *kernels = NULL;
	int rc;

	if (cli->kernel) {
		rows_of(cli, cli->kernel, all, rows);
		return 0;
	}
	rc = cli_ask(cli, NULL, "KERNELS", NULL, &kernels);
	for (size_t i = 0; rc == 0 && i < tos_len(kernels); i++)
		rows_of(cli, tos_get_text(tos_at(kernels, i), "name", ""), all, rows);
	tos_value_free(kernels);
	return rc;
}

static int run_list(struct cli *cli)
{
	struct tos_value *rows = tos_array();
	int rc = list(cli, cli_option(cli, "all") != NULL, rows);

	if (rc == 0 && cli->json)
		print_json(rows);
	else if (rc == 0 && tos_len(rows))
		table_print(rows,
			"tx:TRANSACTION role:ROLE kernel:KERNEL carrier:CARRIER state:STATE text:WHY",
			stdout);
	tos_value_free(rows);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

static int run_show(struct cli *cli, const char *tx)
{
	const char *slash = strrchr(tx, '/');
	struct tos_value *v = NULL;
	char kernel[64] = "";
	int rc;

	if (!slash || slash == tx || (size_t)(slash - tx) >= sizeof(kernel))
		return cli_usage(
			cli, "a transaction is written KERNEL/NUMBER, as tos commit list does");
	memcpy(kernel, tx, (size_t)(slash - tx));
	rc = ask_commit(cli, kernel, "STATUS", map_of("tx", tos_text(tx)), &v);
	if (rc == 0 && cli->json) {
		print_json(v);
	} else if (rc == 0) {
		printf("%s: %s%s%s\nbegun by %s of %s%s%s\n", tx, tos_get_text(v, "state", "?"),
			*tos_get_text(v, "text", "") ? ": " : "", tos_get_text(v, "text", ""),
			tos_get_text(v, "carrier", "?"), tos_get_text(v, "owner", "?"),
			*tos_get_text(v, "by", "") ? ", decided by " : "",
			tos_get_text(v, "by", ""));
		table_print(tos_get(v, "members"),
			"carrier:CARRIER kernel:KERNEL vote:VOTE told:TOLD done:DONE plan:PLAN text:WHY",
			stdout);
	}
	tos_value_free(v);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

static int run_commit(struct cli *cli)
{
	const char *what = cli->args.n_word ? cli->args.word[0] : "list";

	if (strcmp(what, "list") == 0 && cli->args.n_word <= 1)
		return run_list(cli);
	if (strcmp(what, "show") == 0 && cli->args.n_word == 2)
		return run_show(cli, cli->args.word[1]);
	return cli_usage(cli, "tos commit list, or tos commit show TRANSACTION");
}

const struct command command_commit = {
	.name = "commit",
	.args = "list | show TRANSACTION",
	.summary = "Show transactions among carriers",
	.about =
		"list, which is also what happens without a word, asks every kernel (or --kernel) for the transactions that it coordinates and for the parts that "
		"carriers there have in some, those that are not over, or --all that are remembered. A part that is "
		"in-doubt has voted yes and does not know the decision: its kernel asks the coordinator until that is "
		"back; if that never will be, tos resolve --tx settles it. show asks the coordinator what each "
		"participant said.",
	.examples = "tos commit list\tWhat is under way or in doubt\n"
		    "tos commit show host0/01a2022fce6538077c78\tOne of them\n",
	.run = run_commit,
	.words = "list show",
	.max_args = 2,
	.options = { { "all", 0, NULL, "also what is over" } },
};

/* ---- tos resolve --tx */

static const char *const tx_risk =
	"%s of %s is in doubt at %s: it voted yes and does not know what the coordinator decided. If\n"
	"you say %s there, it does so at once. The coordinator may have decided otherwise: then some of\n"
	"the participants have acted and others have not, and nobody but you can put that right.\n";

static bool may(const struct cli *cli, const struct tos_value *row, const char *decision)
{
	char line[16] = "";

	if (cli_option(cli, "yes"))
		return true;
	fprintf(stderr, tx_risk, tos_get_text(row, "carrier", "it"),
		tos_get_text(row, "tx", "?"), tos_get_text(row, "kernel", "?"), decision);
	if (!isatty(0)) {
		fputs("Say --yes if that is what you want.\n", stderr);
		return false;
	}
	fputs("Go on? (yes/no) ", stderr);
	return fgets(line, sizeof(line), stdin) && strcmp(line, "yes\n") == 0;
}

static bool told_already(const struct tos_value *rows, const char *kernel)
{
	for (size_t i = 0; i < tos_len(rows); i++)
		if (strcmp(tos_get_text(tos_at(rows, i), "kernel", ""), kernel) == 0)
			return true;
	return false;
}

/* Each kernel where somebody is in doubt about it, once. */
int resolve_tx(struct cli *cli, const char *tx, const char *decision, struct tos_value *rows)
{
	struct tos_value *all = tos_array();
	int rc = list(cli, true, all);
	size_t found = 0;

	for (size_t i = 0; rc == 0 && i < tos_len(all); i++) {
		const struct tos_value *row = tos_at(all, i);
		const char *kernel = tos_get_text(row, "kernel", "");
		struct tos_value *answer = NULL;

		if (strcmp(tos_get_text(row, "tx", ""), tx) != 0 ||
			strcmp(tos_get_text(row, "state", ""), "in-doubt") != 0 ||
			told_already(rows, kernel))
			continue;
		found++;
		if (!may(cli, row, decision)) {
			rc = err_set(
				&cli->em, ERR_CANCELLED, "%s stays in doubt at %s", tx, kernel);
			break;
		}
		rc = cli_connect_to(cli, kernel);
		rc = rc ? rc
			: cli_act(cli, kernel, "resolve-tx", tx,
				  map_of("decision", tos_text(decision)), &answer);
		if (rc == 0) {
			tos_set(answer, "name", tos_text(tx));
			tos_set(answer, "asked", tos_text("resolve --tx"));
			tos_set(answer, "state", tos_text(decision));
			tos_set(answer, "kernel", tos_text(kernel));
			tos_push(rows, answer);
		}
	}
	tos_value_free(all);
	if (rc == 0 && !found)
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"no kernel that answers is in doubt about %s; tos commit list has those that are",
			tx);
	return rc;
}
