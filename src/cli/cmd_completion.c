/* tos completion, and the hidden manual that the build uses */
#include <dirent.h>
#include <string.h>

#include "base/where.h"
#include "cli/cli.h"
#include "cli/commands.h"

static int run_completion(struct cli *cli)
{
	if (cli->args.n_word && strcmp(cli->args.word[0], "bash") != 0)
		return cli_usage(
			cli, "there is a script for bash only, not for %s", cli->args.word[0]);
	completion_print(stdout);
	return EXIT_DONE;
}

const struct command command_completion = {
	.name = "completion",
	.args = "[bash]",
	.max_args = 1,
	.summary = "Print the completion script for bash",
	.about = "Installed packages bring it along; elsewhere it is read with source.",
	.examples = "source <(tos completion)\tIn this shell\n",
	.run = run_completion,
};

/* Shipped carriers lie beside facts. */
void carriers_shipped(struct buf *out, const char *between)
{
	char path[4096];
	struct dirent *e;
	DIR *d;

	if (where_carrier("facts", path, sizeof(path)) < 0)
		return;
	*strrchr(path, '/') = 0;
	d = opendir(path);
	while (d && (e = readdir(d))) {
		size_t n = strlen(e->d_name);

		if (n > 4 && strcmp(e->d_name + n - 4, ".lua") == 0)
			buf_printf(out, "%s%.*s", out->len ? between : "", (int)(n - 4),
				e->d_name);
	}
	if (d)
		closedir(d);
}

static int run_manual(struct cli *cli)
{
	const char *name = cli->args.n_word ? cli->args.word[0] : NULL;
	const struct command *c = name && strcmp(name, "tos") != 0 ? command_find(name) : NULL;

	if (cli_option(cli, "carriers")) {
		AUTOBUF list = BUF_INIT;

		carriers_shipped(&list, "\n");
		puts(buf_cstr(&list));
		return EXIT_DONE;
	}
	if (name && !c && strcmp(name, "tos") != 0)
		return cli_usage(cli, "there is no command %s", name);
	if (name) {
		manual_page(c, stdout);
		return EXIT_DONE;
	}
	for (size_t i = 0; commands[i]; i++)
		if (!commands[i]->hidden)
			puts(commands[i]->name);
	return EXIT_DONE;
}

const struct command command_manual = {
	.name = "manual",
	.args = "[COMMAND]",
	.summary = "Print a manual page as scdoc source",
	.about = "Used by the build: the manual pages come from the same table as the help.",
	.run = run_manual,
	.max_args = 1,
	.hidden = true,
	.options = { { "carriers", 0, NULL, "list the shipped carriers" } },
};
