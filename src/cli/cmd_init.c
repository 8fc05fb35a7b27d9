/* tos init */
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/domain.h"

static int read_passphrase(struct cli *cli, struct buf *out)
{
	const char *file = cli_option(cli, "passphrase-file");
	int rc = file ? bytes_read(file, 1024, out, &cli->em) : 0;

	if (rc == 0 && file) {
		while (out->len &&
			(out->data[out->len - 1] == '\n' || out->data[out->len - 1] == '\r'))
			out->len--;
		if (!out->len)
			return err_set(&cli->em, ERR_USAGE, "%s is empty", file);
	}
	return rc;
}

int cli_listen(struct cli *cli, struct listen_at *out, const struct listen_at **where)
{
	const char *listen = cli_option(cli, "listen"),
		   *advertise = cli_option(cli, "advertise");

	*where = NULL;
	if (!listen && advertise)
		return err_set(&cli->em, ERR_USAGE, "--advertise goes with --listen");
	if (!listen)
		return 0;
	*where = out;
	return listen_parse(listen, advertise, out, &cli->em);
}

static int run_init(struct cli *cli)
{
	const struct listen_at *where;
	struct listen_at at;
	AUTOBUF phrase = BUF_INIT;
	AUTOBUF said = BUF_INIT;
	int rc = read_passphrase(cli, &phrase);

	rc = rc ? rc : cli_listen(cli, &at, &where);
	rc = rc ? rc
		: domain_init(cli->home, phrase.len ? buf_cstr(&phrase) : NULL, where, &said,
			  &cli->em);
	if (rc < 0)
		return cli_fail(cli, rc);
	if (cli->json) {
		char path[HOME_PATH_MAX];
		struct tos_value *v;

		home_path(cli->home, path, NULL);
		v = map_of("home", tos_text(path));
		tos_set(v, "principal", tos_text("admin"));
		tos_set(v, "kernel", tos_text("host0"));
		print_json(v);
		tos_value_free(v);
		return EXIT_DONE;
	}
	fputs(buf_cstr(&said), stdout);
	puts("next        tos up -n 3");
	return EXIT_DONE;
}

const struct command command_init = {
	.name = "init",
	.args = "",
	.summary = "Make a domain: root key, registrar, principal admin, first kernel",
	.about =
		"Makes $TOS_HOME with a root certificate authority, an intermediate for the "
		"registrar, a "
		"principal named admin, and the configuration of kernel host0. Nothing is "
		"asked and nothing "
		"is overwritten. The root key signs principals and revocation lists only; "
		"kernels don't "
		"need it, so it can be moved to another place and brought back when it is "
		"wanted.\n\n"
		"The first kernel listens on 127.0.0.1 unless --listen says another address of this machine; hosts that "
		"join later must be able to dial it.",
	.examples = "tos init\tA domain in the default place\n"
		    "TOS_HOME=$PWD/t tos init\tOne for an experiment\n"
		    "tos init --listen 192.0.2.1\tOne that other hosts will join\n",
	.run = run_init,
	.options = { { "passphrase-file", 0, "FILE",
			     "encrypt the root key under the first line of FILE; later commands take it "
			     "from "
			     "TOS_PASSPHRASE" },
		LISTEN_OPTIONS },
};
