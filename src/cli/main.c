/* tos: the command line. Names the commands and runs one. */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"

#define COMMAND_REF(name) &command_##name,
const struct command *const commands[] = { COMMANDS(COMMAND_REF) NULL };

const struct command *command_find(const char *name)
{
	for (size_t i = 0; commands[i]; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

static int run(struct cli *cli)
{
	const char *timeout = cli_option(cli, "timeout");
	int64_t ms;

	if (timeout && (text_duration(timeout, &ms) < 0 || ms <= 0 || ms > 86400000))
		return cli_usage(
			cli, "--timeout %s is no time such as 500ms, 10s, 5m", timeout);
	cli->timeout_ms = timeout ? (uint32_t)ms : 0;
	cli->home = cli_option(cli, "home");
	cli->kernel = cli_option(cli, "kernel");
	cli->json = cli_option(cli, "json") != NULL;
	return cli->args.command->run(cli);
}

/* Whoever reads what we print has had enough: `tos metrics | head`. */
static bool reader_left(void)
{
	struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLERR);
}

/* A command that printed is only done when what it printed went out. */
static int flushed(struct cli *cli, int code)
{
	if ((fflush(stdout) == 0 && !ferror(stdout)) || reader_left())
		return code;
	err_errno(&cli->em, "cannot write the output");
	return cli_fail(cli, ERR_IO);
}

/* `tos help COMMAND` is `tos COMMAND --help`; what else follows is left aside. */
static int parse(int argc, char **argv, struct cli *cli)
{
	char help[] = "--help";
	char *asked[] = { argv[0], help, argc > 2 ? argv[2] : NULL, NULL };

	if (argc < 2 || strcmp(argv[1], "help") != 0)
		return args_parse(argc, argv, commands, &cli->args, &cli->em);
	return args_parse(argc > 2 ? 3 : 2, asked, commands, &cli->args, &cli->em);
}

int main(int argc, char **argv)
{
	static struct cli cli;
	int code, rc = parse(argc, argv, &cli);

	signal(SIGPIPE, SIG_IGN);
	if (rc < 0)
		return cli_fail(&cli, rc);
	if (cli_option(&cli, "version")) {
		puts("tos " TOS_VERSION);
		return flushed(&cli, EXIT_DONE);
	}
	if (!cli.args.command || cli_option(&cli, "help")) {
		bool asked = cli_option(&cli, "help");

		if (cli.args.command)
			help_command(cli.args.command, stdout);
		else
			help_program(asked ? stdout : stderr);
		return asked ? flushed(&cli, EXIT_DONE) : EXIT_USAGE;
	}
	code = run(&cli);
	tos_shell_free(cli.shell);
	tos_principal_free(cli.principal);
	cli_disconnect(&cli);
	return flushed(&cli, code);
}
