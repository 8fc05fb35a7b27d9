/* tos drain: a kernel that takes no carriers any more, until the last one has left */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/commands.h"

#define POLL_MS 200

static int left(struct cli *cli, const char *kernel, struct tos_value **out)
{
	struct tos_value *all = NULL;
	int rc = cli_ask(cli, kernel, "RESIDENTS", NULL, &all);

	if (rc == 0)
		*out = all;
	return rc;
}

static void progress(const char *kernel, const struct tos_value *rows, size_t *told)
{
	size_t n = tos_len(rows);

	if (n == *told)
		return;
	*told = n;
	fprintf(stderr, "%s: %zu carriers are left", kernel, n);
	for (size_t i = 0; i < n && i < 4; i++)
		fprintf(stderr, "%s %s (%s)", i ? "," : ":",
			tos_get_text(tos_at(rows, i), "name", ""),
			tos_get_text(tos_at(rows, i), "state", ""));
	fprintf(stderr, "%s\n", n > 4 ? ", ..." : "");
}

static int wait_empty(struct cli *cli, const char *kernel, struct tos_value **rows)
{
	int64_t deadline = clock_ms() + cli_timeout(cli, 60000);
	size_t told = (size_t)-1;

	interrupt_catch();
	for (;;) {
		int rc = left(cli, kernel, rows);

		if (rc < 0)
			return rc;
		progress(kernel, *rows, &told);
		if (tos_len(*rows) == 0)
			return 0;
		if (interrupted())
			return err_set(&cli->em, ERR_TIMEOUT, "%s goes on draining", kernel);
		if (clock_ms() >= deadline)
			return err_set(&cli->em, ERR_TIMEOUT,
				"%zu carriers are still at %s, which goes on draining: wait again, or tos kill them",
				tos_len(*rows), kernel);
		tos_value_free(*rows);
		*rows = NULL;
		usleep(POLL_MS * 1000);
	}
}

static int run_drain(struct cli *cli)
{
	const char *kernel = cli->args.word[0];
	bool undo = cli_option(cli, "undo") != NULL;
	struct tos_value *args = map_of("undo", tos_bool(undo)), *answer = NULL, *rows = NULL;
	int rc = cli_connect_to(cli, kernel);

	if (rc < 0) {
		tos_value_free(args);
		return cli_fail(cli, rc);
	}
	rc = cli_act(cli, kernel, "drain", kernel, args, &answer);
	if (rc == 0 && !undo && !cli_option(cli, "no-wait"))
		rc = wait_empty(cli, kernel, &rows);
	else if (rc == 0)
		rc = left(cli, kernel, &rows);
	if (answer && rows) {
		tos_set(answer, "left", rows);
		if (cli->json)
			print_json(answer);
		else if (undo)
			printf("%s takes carriers again\n", kernel);
		else if (rc == 0)
			printf("%s drains; %zu carriers are left\n", kernel, tos_len(rows));
	}
	tos_value_free(answer);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_drain = {
	.name = "drain",
	.args = "KERNEL",
	.words = "kernels",
	.summary = "Have a kernel take no carriers any more, and wait until the last has left",
	.about =
		"From now on KERNEL admits no carrier: launches there are refused, and to those that would come it is as "
		"good as unreachable, so that they wait, take an alternative or fail as their --on-unreachable says. "
		"Those that are there run on and leave by their path; each with an inbox named drain gets a folder "
		"there, so that it can leave before it is done. Outcomes of carriers launched at KERNEL still come "
		"home to it. The command waits until none is left, saying which are (exit 4 at --timeout, default "
		"60s); what stays is for tos kill. It lasts over restarts, until --undo.",
	.examples = "tos drain host2 --timeout 10m\tBefore the machine is switched off\n"
		    "tos drain host2 --undo\tIt takes carriers again\n",
	.run = run_drain,
	.min_args = 1,
	.max_args = 1,
	.options = { { "undo", 0, NULL, "take carriers again" },
		{ "no-wait", 0, NULL, "do not wait until the last has left" },
		{ "as", 0, "PRINCIPAL", "who signs the act; default from domain.conf" } },
};
