/* tos backup, tos restore: a kernel's store in one file, and back. The copying is tos-kernel's, which has SQLite. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/where.h"
#include "cli/cli.h"
#include "cli/commands.h"

/* Run tos-kernel with these arguments; what it prints into out, the first line of what it complains about into em. */
static int helper(struct cli *cli, char *const argv[], struct buf *out)
{
	char program[HOME_PATH_MAX], text[4096];
	size_t said = 0;
	int pipes[2][2], status = 0;
	ssize_t n;
	pid_t pid;

	if (where_program("tos-kernel", program, sizeof(program)) < 0)
		return err_set(
			&cli->em, ERR_NOT_FOUND, "tos-kernel is not there: see tos doctor");
	if (pipe(pipes[0]) < 0 || pipe(pipes[1]) < 0)
		return err_errno(&cli->em, "no pipe");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return err_errno(&cli->em, "cannot start a process");
	if (pid == 0) {
		dup2(pipes[0][1], 1);
		dup2(pipes[1][1], 2);
		for (int i = 0; i < 4; i++)
			close(pipes[i / 2][i % 2]);
		execv(program, argv);
		_exit(127);
	}
	close(pipes[0][1]);
	close(pipes[1][1]);
	while ((n = read(pipes[0][0], text, sizeof(text))) > 0)
		buf_add(out, text, (size_t)n);
	while (said < sizeof(text) - 1 &&
		(n = read(pipes[1][0], text + said, sizeof(text) - 1 - said)) > 0)
		said += (size_t)n;
	close(pipes[0][0]);
	close(pipes[1][0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	text[said] = 0;
	text[strcspn(text, "\n")] = 0;
	return err_set(&cli->em, ERR_STORE, "%s", said ? text : "tos-kernel failed");
}

/* key=value lines */
static void field(struct buf *b, const char *key, char out[128])
{
	const char *s = buf_cstr(b);
	size_t n = strlen(key);

	out[0] = 0;
	for (; s && *s; s += strcspn(s, "\n"), s += *s == '\n')
		if (strncmp(s, key, n) == 0 && s[n] == '=')
			snprintf(out, 128, "%.*s", (int)strcspn(s + n + 1, "\n"), s + n + 1);
}

static int say(struct cli *cli, struct buf *info, const char *file, const char *done)
{
	struct tos_value *v = tos_map();
	char kernel[128], carriers[128], keys[128], wall[128];

	field(info, "kernel", kernel);
	field(info, "carriers", carriers);
	field(info, "keys", keys);
	field(info, "wall", wall);
	tos_set(v, "kernel", tos_text(kernel));
	tos_set(v, "file", tos_text(file));
	tos_set(v, "carriers", tos_int(atoll(carriers)));
	tos_set(v, "keys", tos_bool(strcmp(keys, "yes") == 0));
	tos_set(v, "wall", tos_int(atoll(wall)));
	if (cli->json)
		print_json(v);
	else
		printf("%s: %s, %s carriers%s\n", kernel, done, carriers,
			strcmp(keys, "yes") == 0 ? ", with its keys" : "");
	tos_value_free(v);
	return EXIT_DONE;
}

/* ---- backup */

/* A kernel that runs is asked first: its policy decides, and its audit chain says who. */
static int allowed(struct cli *cli, const struct home *h, const char *kernel)
{
	struct tos_connection *c = NULL;
	struct tos_value *answer = NULL;
	int rc = tos_connect(h->path, kernel, 2000, &c, cli_err(cli));

	if (rc < 0)
		return keeper_pid(h, kernel) ? rc : 0; /* it is down: nobody to ask */
	tos_disconnect(c);
	rc = cli_connect_to(cli, kernel);
	rc = rc ? rc : cli_act(cli, kernel, "backup", kernel, NULL, &answer);
	tos_value_free(answer);
	return rc;
}

static int run_backup(struct cli *cli)
{
	const char *kernel = cli->args.word[0], *file = cli->args.word[1];
	char dir[HOME_PATH_MAX];
	AUTOBUF info = BUF_INIT, none = BUF_INIT;
	struct home h;
	struct stat st;
	int rc = home_open(cli->home, &h, &cli->em);

	rc = rc ? rc : path_join(dir, sizeof(dir), &cli->em, h.path, "kernels", kernel, NULL);
	if (rc == 0 && stat(dir, &st) < 0)
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"there is no kernel %s in %s: a backup is taken on the kernel's own host",
			kernel, h.path);
	if (rc == 0 && access(file, F_OK) == 0)
		rc = err_set(&cli->em, ERR_EXISTS, "%s is there already", file);
	rc = rc ? rc : allowed(cli, &h, kernel);
	if (rc == 0) {
		char *argv[] = { "tos-kernel", "--backup", dir, (char *)file,
			cli_option(cli, "keys") ? "--keys" : NULL, NULL };

		rc = helper(cli, argv, &none);
	}
	if (rc == 0) {
		char *argv[] = { "tos-kernel", "--inspect", (char *)file, NULL };

		rc = helper(cli, argv, &info);
	}
	return rc < 0 ? cli_fail(cli, rc) : say(cli, &info, file, "backed up");
}

const struct command command_backup = {
	.name = "backup",
	.args = "KERNEL FILE",
	.words = "kernels",
	.summary = "Copy a kernel's store into a file, while it runs",
	.about =
		"Makes FILE, one consistent copy of the kernel's store as it is at this moment, with its configuration and "
		"certificates. The kernel may run; then its policy is asked (action backup) and its audit chain says who. "
		"FILE can be read by you alone: it holds what carriers carry. With --keys it also holds the kernel's private "
		"key, so that it can be put back on a new machine; keep such a file as you keep the key.",
	.examples =
		"tos backup host0 host0.backup\tEvery night, say\n"
		"tos backup host0 host0.backup --keys\tEnough to rebuild it on a new machine\n",
	.run = run_backup,
	.min_args = 2,
	.max_args = 2,
	.options = { { "keys", 0, NULL, "the kernel's private key too" },
		{ "as", 0, "PRINCIPAL", "who signs the act; default from domain.conf" } },
};

/* ---- restore */

static int run_restore(struct cli *cli)
{
	const char *file = cli->args.word[0];
	char dir[HOME_PATH_MAX], kernel[128] = "";
	AUTOBUF info = BUF_INIT, none = BUF_INIT;
	struct home h;
	int rc = home_open(cli->home, &h, &cli->em);

	if (rc == 0) {
		char *argv[] = { "tos-kernel", "--inspect", (char *)file, NULL };

		rc = helper(cli, argv, &info);
	}
	if (rc == 0) {
		field(&info, "kernel", kernel);
		rc = path_join(dir, sizeof(dir), &cli->em, h.path, "kernels", kernel, NULL);
	}
	if (rc == 0 && keeper_pid(&h, kernel))
		rc = err_set(
			&cli->em, ERR_STATE, "%s runs: 'tos down %s' first", kernel, kernel);
	rc = rc ? rc : dir_make(dir, 0700, &cli->em);
	if (rc == 0) {
		char *argv[] = { "tos-kernel", "--restore", (char *)file, dir, NULL };

		rc = helper(cli, argv, &none);
	}
	if (rc < 0)
		return cli_fail(cli, rc);
	say(cli, &info, file, "restored");
	if (!cli->json)
		puts("next: tos up\nIts carriers wait until their homes have said where they are.");
	return EXIT_DONE;
}

const struct command command_restore = {
	.name = "restore",
	.args = "FILE",
	.words = "files",
	.summary = "Put a backup in the place of a kernel's store",
	.about =
		"Checks FILE, which tos backup made, and puts it in the place of the store of the kernel that it is of; what "
		"was there is kept as store.db.before-restore. Where the kernel has no directory yet, it is made from the "
		"backup, if that was taken with --keys. The kernel must be down.\n\n"
		"The store is then an old one, and the kernel knows it: when it starts it runs no carrier of it before the "
		"carrier's home, or for carriers of its own every other kernel, has said that it is nowhere else. Carriers "
		"that moved on since the backup are dropped here, those that came since and are nowhere else are lost, the "
		"rest goes on. tos ps shows those that wait as in doubt; tos resolve --dead KERNEL says that one of "
		"those that are waited for will never answer.",
	.examples = "tos restore host0.backup\tThen tos up\n",
	.run = run_restore,
	.min_args = 1,
	.max_args = 1,
};
