/* tos programs: what carriers have run here */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"

/* For people: what matters, in words. */
static struct tos_value *shown(const struct tos_value *rows)
{
	struct tos_value *list = tos_array();
	int64_t now = clock_wall_ms();

	for (size_t i = 0; i < tos_len(rows); i++) {
		const struct tos_value *p = tos_at(rows, i);
		bool ended = strcmp(tos_get_text(p, "state", ""), "ended") == 0;
		struct tos_value *m = tos_map();
		char since[16];

		age_text(tos_get_int(p, "started_ms", now), now, since);
		tos_set(m, "kernel", tos_text(tos_get_text(p, "kernel", "")));
		tos_set(m, "number", tos_int(tos_get_int(p, "number", 0)));
		tos_set(m, "name", tos_text(tos_get_text(p, "name", "")));
		tos_set(m, "carrier", tos_text(tos_get_text(p, "carrier", "")));
		tos_set(m, "owner", tos_text(tos_get_text(p, "owner", "")));
		tos_set(m, "state",
			ended ? tos_textf("ended: %s %lld", tos_get_text(p, "cause", ""),
					(long long)tos_get_int(
						p, "code", tos_get_int(p, "signal", 0)))
			      : tos_textf("%s%s", tos_get_text(p, "state", ""),
					tos_get_bool(p, "stays", false) ? ", stays" : ""));
		tos_set(m, "pid", tos_int(tos_get_int(p, "pid", 0)));
		tos_set(m, "since", tos_text(since));
		tos_set(m, "program", tos_text(tos_get_text(p, "program", "")));
		tos_push(list, m);
	}
	return list;
}

static int list(struct cli *cli)
{
	struct tos_value *answer = NULL, *rows;
	int rc = cli_ask(cli, NULL, "PROGRAMS", NULL, &answer);

	if (rc < 0)
		return cli_fail(cli, rc);
	if (cli->json) {
		print_json(tos_get(answer, "programs"));
	} else {
		rows = shown(tos_get(answer, "programs"));
		table_print(rows,
			"number:NUMBER name:NAME carrier:CARRIER owner:OWNER state:STATE pid:PID "
			"since:SINCE program:PROGRAM",
			stdout);
		tos_value_free(rows);
	}
	tos_value_free(answer);
	return EXIT_DONE;
}

static int stop(struct cli *cli)
{
	struct tos_value *rows = tos_array();
	int code = EXIT_DONE;

	if (cli->args.n_word < 2)
		return cli_usage(cli, "which programs? 'tos programs' lists them");
	for (size_t i = 1; i < cli->args.n_word; i++) {
		struct tos_value *answer = NULL;
		int rc = cli_act(
			cli, cli->kernel, "stop-program", cli->args.word[i], NULL, &answer);

		if (rc < 0) {
			err_wrap(&cli->em, rc, "%s", cli->args.word[i]);
			code = cli_fail(cli, rc);
		} else {
			tos_push(rows, answer);
		}
	}
	if (tos_len(rows) && cli->json)
		print_json(rows);
	else if (tos_len(rows))
		table_print(rows, "number:NUMBER name:NAME carrier:CARRIER program:PROGRAM",
			stdout);
	tos_value_free(rows);
	return code;
}

static int run_programs(struct cli *cli)
{
	const char *verb = cli->args.n_word ? cli->args.word[0] : "list";

	if (strcmp(verb, "list") == 0 && cli->args.n_word < 2)
		return list(cli);
	if (strcmp(verb, "stop") == 0)
		return stop(cli);
	return cli_usage(cli, "'%s': tos programs does list and stop", verb);
}

const struct command command_programs = {
	.name = "programs",
	.args = "[list] | stop PROGRAM...",
	.summary = "List and stop the programs that carriers run at a kernel",
	.about = "A carrier has the Executor run programs that the host admits, each in a sandbox of its own. list shows "
		 "those that run, and those whose end nobody has taken yet; stop asks one to end (SIGTERM) and kills it five seconds "
		 "later, by a signed act: whoever may kill the carrier's owner's carriers may do that. A PROGRAM is the "
		 "number or the name that list shows.\n\n"
		 "What may be run is said by rules of the firewall (run), limits by section programs of tosd.conf.",
	.examples = "tos programs --kernel host3\tWhat runs there?\n"
		    "tos programs stop 8131442 --kernel host3\tEnd one\n",
	.run = run_programs,
	.max_args = ARGS_ANY,
	.words = "list stop",
	.options = {
		{ "as", 0, "PRINCIPAL", "stop: who signs the act; default from domain.conf" },
	},
};
