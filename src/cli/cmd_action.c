/* tos action: the privileged steps that a host's configuration names */
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"

static struct tos_value *args_shown(const struct tos_value *args)
{
	AUTOBUF text = BUF_INIT;

	for (size_t i = 0; i < tos_len(args); i++) {
		const char *name = tos_get_text(tos_at(args, i), "name", "?");
		const char *kind = tos_get_text(tos_at(args, i), "kind", "?");

		buf_printf(&text, "%s%s", i ? " " : "", name);
		if (strcmp(name, kind) != 0)
			buf_printf(&text, ":%s", kind);
	}
	return tos_text(buf_cstr(&text));
}

static struct tos_value *run_shown(const struct tos_value *run)
{
	AUTOBUF text = BUF_INIT;

	for (size_t i = 0; i < tos_len(run); i++)
		buf_printf(&text, "%s%s", i ? " " : "", tos_as_text(tos_at(run, i), "?"));
	return tos_text(buf_cstr(&text));
}

static int run_action(struct cli *cli)
{
	struct tos_value *answer = NULL, *rows;
	const struct tos_value *list;
	int rc;

	if (cli->args.n_word && strcmp(cli->args.word[0], "list") != 0)
		return cli_usage(cli,
			"it is 'tos action list'; an action is run with tos run --action %s",
			cli->args.word[0]);
	rc = cli_ask(cli, NULL, "ACTIONS", NULL, &answer);
	if (rc < 0)
		return cli_fail(cli, rc);
	list = tos_get(answer, "actions");
	if (cli->json) {
		print_json(list);
	} else {
		rows = tos_array();
		for (size_t i = 0; i < tos_len(list); i++) {
			const struct tos_value *a = tos_at(list, i);
			struct tos_value *m = tos_map();

			tos_set(m, "name", tos_text(tos_get_text(a, "name", "?")));
			tos_set(m, "args", args_shown(tos_get(a, "args")));
			tos_set(m, "timeout",
				tos_textf(
					"%gs", (double)tos_get_int(a, "timeout_ms", 0) / 1000));
			tos_set(m, "run", run_shown(tos_get(a, "run")));
			tos_push(rows, m);
		}
		table_print(rows, "name:NAME args:ARGUMENTS timeout:TIMEOUT run:RUN", stdout);
		tos_value_free(rows);
	}
	tos_value_free(answer);
	return EXIT_DONE;
}

const struct command command_action = {
	.name = "action",
	.args = "[list]",
	.summary = "List the named actions of a kernel's host",
	.about =
		"An action is a privileged step (to restart a service, to block an address) that the host's tosd.conf names in a "
		"section action: a program with its arguments, into which go a few values of fixed kinds. tosd runs it, outside of any "
		"sandbox and without a shell, for carriers whose owner a rule grants it by name, as in 'allow carrier-of:alice action "
		"block'. Without such a rule nobody may, administrators included.\n\n"
		"'tos can carrier-of:alice action block' says whether alice's carriers may. 'tos run --action block address=192.0.2.7' runs "
		"it on many hosts; a carrier asks the Executor: tos.call(\"Executor\", {\"ACTION\", {name = \"block\", args = "
		"{address = \"192.0.2.7\"}}}, 10).",
	.examples = "tos action list --kernel host3\tWhich does it have?\n"
		    "tos run --action block address=192.0.2.7\tRun one everywhere\n",
	.run = run_action,
	.max_args = 1,
	.words = "list",
};
