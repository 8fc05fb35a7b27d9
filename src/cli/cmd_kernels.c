/* tos kernels, enroll, join */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/principal.h"
#include "lib/domain.h"

#define AS                                                                                     \
	{                                                                                      \
		"as", 0, "PRINCIPAL", "who signs the act; default from domain.conf"            \
	}

/* ---- who is registrar */

int registrar_name(struct cli *cli, char out[64]);
int registrar_name(struct cli *cli, char out[64])
{
	struct tos_value *status = NULL;
	int rc = cli_ask(cli, NULL, "STATUS", NULL, &status);

	if (rc == 0)
		snprintf(out, 64, "%s", tos_get_text(status, "registrar", ""));
	tos_value_free(status);
	if (rc == 0 && !*out)
		return err_set(&cli->em, ERR_STATE, "kernel %s has no registrar",
			tos_connection_kernel(cli->connection));
	return rc ? rc : cli_connect_to(cli, out);
}

/* ---- kernels */

static int list_kernels(struct cli *cli)
{
	struct tos_value *list = NULL, *rows = tos_array();
	int rc = cli_ask(cli, NULL, "KERNELS", NULL, &list);

	for (size_t i = 0; rc == 0 && i < tos_len(list) && !cli->json; i++) {
		const struct tos_value *k = tos_at(list, i);
		struct tos_value *row = map_of("name", tos_text(tos_get_text(k, "name", "?")));
		int64_t rtt = tos_get_int(k, "rtt_us", -1);
		char age[16];

		age_text(tos_get_int(k, "since_ms", 0), clock_wall_ms(), age);
		tos_set(row, "address", tos_text(tos_get_text(k, "address", "")));
		tos_set(row, "state", tos_text(tos_get_text(k, "state", "")));
		tos_set(row, "linked",
			tos_text(tos_get_bool(k, "linked", false) ? "yes" : "no"));
		tos_set(row, "since", tos_text(age));
		tos_set(row, "rtt",
			rtt < 0 ? tos_text("") : tos_textf("%.1f ms", (double)rtt / 1000));
		tos_push(rows, row);
	}
	if (rc == 0 && cli->json)
		print_json(list);
	else if (rc == 0)
		table_print(rows,
			"name:KERNEL address:ADDRESS state:STATE linked:LINKED since:SINCE "
			"rtt:RTT",
			stdout);
	tos_value_free(list);
	tos_value_free(rows);
	return rc;
}

/* The new list goes to the registrar, or whichever kernel we talk to; kernels pass the higher
 * number on. */
int revoke_serials(struct cli *cli, const struct home *h, const struct tos_value *serials,
	uint64_t *number)
{
	AUTOBUF list = BUF_INIT;
	struct names all = { NULL, 0 };
	size_t told = 0, failed = 0;
	int rc = domain_revoke(h, serials, number, &list, &cli->em);

	rc = rc ? rc : home_kernels(h, &all);
	for (size_t i = 0; rc == 0 && i < all.n; i++) {
		char path[HOME_PATH_MAX];

		if (path_join(path, sizeof(path), NULL, h->path, "kernels", all.v[i], "revoked",
			    NULL) == 0)
			bytes_write(path, list.data, list.len, 0644, NULL);
		if (cli_connect_to(cli, all.v[i]) < 0 ||
			strcmp(tos_connection_kernel(cli->connection), all.v[i]) != 0)
			continue; /* it reads its file when it starts, or hears of it from the
				     others */
		if (cli_act(cli, NULL, "revoke", "",
			    map_of("list", tos_bytes(list.data, list.len)), NULL) == 0)
			told++;
		else {
			failed++;
			fprintf(stderr, "tos: %s did not take the revocation list: %s\n",
				all.v[i], cli->em.text);
		}
	}
	if (rc == 0 && !told)
		fprintf(stderr,
			"tos: no kernel has the new revocation list yet; start them, or give "
			"them "
			"%s/ca/revoked\n",
			h->path);
	names_fini(&all);
	return rc == 0 && failed && !told
		       ? err_set(&cli->em, ERR_REFUSED, "no kernel took the list")
		       : rc;
}

static bool in_directory(struct cli *cli, const char *name)
{
	struct tos_value *list = NULL;
	bool is = false;

	if (cli_ask(cli, NULL, "KERNELS", NULL, &list) < 0)
		return true; /* who can't be asked denies nothing */
	for (size_t i = 0; i < tos_len(list) && !is; i++)
		is = strcmp(tos_get_text(tos_at(list, i), "name", ""), name) == 0;
	tos_value_free(list);
	return is;
}

static int remove_kernel(struct cli *cli, const char *name)
{
	struct tos_value *serials = tos_array(), *answer = NULL;
	const struct tos_value *theirs;
	char registrar[64];
	uint64_t number = 0;
	struct home h;
	bool known = false;
	int rc = home_open(cli->home, &h, &cli->em);

	rc = rc ? rc : registrar_name(cli, registrar);
	if (rc == 0 && strcmp(registrar, name) == 0)
		rc = err_set(
			&cli->em, ERR_STATE, "%s is the registrar; the domain needs it", name);
	if (rc == 0)
		known = in_directory(cli, name);
	rc = rc ? rc : cli_act(cli, registrar, "remove", name, NULL, &answer);
	/* The registrar knows the certificates that it issued; those made here lie here. */
	theirs = tos_get(answer, "serials");
	for (size_t i = 0; rc == 0 && i < tos_len(theirs); i++)
		rc = tos_push(serials, tos_value_copy(tos_at(theirs, i)));
	if (rc == 0 && domain_serials(&h, true, name, serials, NULL) < 0 &&
		tos_len(serials) == 0 && !known)
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"no kernel %s is in the Directory, and no certificate of that name is known; "
			"'tos kernels' lists them",
			name);
	else if (rc == 0 && tos_len(serials) == 0)
		fprintf(stderr,
			"tos kernels: the certificate of %s is not known here and stays "
			"valid\n",
			name);
	if (rc == 0 && tos_len(serials))
		rc = revoke_serials(cli, &h, serials, &number);
	if (rc == 0 && cli->json)
		print_json(answer);
	else if (rc == 0)
		printf("%s is removed%s\n", name, number ? ", its certificate revoked" : "");
	tos_value_free(serials);
	tos_value_free(answer);
	return rc;
}

static int run_kernels(struct cli *cli)
{
	const char *verb = cli->args.n_word ? cli->args.word[0] : "list";
	int rc;

	if (strcmp(verb, "list") == 0 && cli->args.n_word <= 1)
		rc = list_kernels(cli);
	else if (strcmp(verb, "remove") == 0 && cli->args.n_word == 2)
		rc = remove_kernel(cli, cli->args.word[1]);
	else
		return cli_usage(cli, "it is 'tos kernels' or 'tos kernels remove NAME'");
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_kernels = {
	.name = "kernels",
	.args = "[remove KERNEL]",
	.summary = "List the kernels of the domain, or remove one",
	.about = "Lists the kernels that the Directory and the links of the asked kernel know, "
		 "with address, state and round "
		 "trip. Removing one takes it out of the Directory and revokes its "
		 "certificate, for which the domain's "
		 "root key is needed; its links are closed.",
	.examples = "tos kernels\tWho is there\n"
		    "tos kernels remove host2\tIt may not come back\n",
	.run = run_kernels,
	.max_args = 2,
	.words = "list remove",
	.options = { AS },
};

/* ---- enroll */

static int enroll_args(struct cli *cli, struct tos_value **out)
{
	const char *expires = cli_option(cli, "expires"), *address;
	struct tos_value *args = tos_map(), *addresses = tos_array();
	int64_t ms = 3600000;
	int rc = 0;

	if (expires && (text_duration(expires, &ms) < 0 || ms <= 0))
		rc = err_set(
			&cli->em, ERR_USAGE, "--expires %s is no time such as 1h", expires);
	for (size_t it = 0; rc == 0 && (address = args_next(&cli->args, "address", &it));)
		rc = strchr(address, ':') ? tos_push(addresses, tos_text(address))
					  : err_set(&cli->em, ERR_USAGE,
						    "--address %s is not HOST:PORT", address);
	rc = rc ? rc : tos_set(args, "replace", tos_bool(cli_option(cli, "replace")));
	rc = rc ? rc : tos_set(args, "expires_ms", tos_int(ms));
	if (rc == 0 && tos_len(addresses))
		rc = tos_set(args, "addresses", STEAL(addresses));
	tos_value_free(addresses);
	if (rc < 0)
		tos_value_free(args);
	else
		*out = args;
	return rc;
}

/* Whoever had the name so far is not to go on under it. */
static int replaced_revoke(
	struct cli *cli, const struct home *h, const char *name, const struct tos_value *answer)
{
	struct tos_value *serials = tos_value_copy(tos_get(answer, "serials"));
	uint64_t number = 0;
	int rc = 0;

	if (!serials)
		serials = tos_array();
	(void)domain_serials(h, true, name, serials, NULL);
	if (tos_len(serials))
		rc = revoke_serials(cli, h, serials, &number);
	if (rc == 0 && number)
		fprintf(stderr,
			"tos enroll: the certificate that %s had is revoked (list %llu)\n",
			name, (unsigned long long)number);
	tos_value_free(serials);
	return rc;
}

static int run_enroll(struct cli *cli)
{
	struct tos_value *args = NULL, *answer = NULL;
	bool revoke = cli_option(cli, "replace") && !cli_option(cli, "keep-old");
	char registrar[64];
	struct home h;
	int rc = enroll_args(cli, &args);

	rc = rc ? rc : home_open(cli->home, &h, &cli->em);
	if (rc == 0 && revoke && !domain_has_root(&h))
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"--replace revokes the certificate that %s has, and the root key for that is "
			"not in %s; with --keep-old that one stays valid until it expires",
			cli->args.word[0], h.path);

	rc = rc ? rc : registrar_name(cli, registrar);
	rc = rc ? rc
		: cli_act(cli, registrar, "enroll", cli->args.word[0], STEAL(args), &answer);
	if (rc == 0 && revoke)
		rc = replaced_revoke(cli, &h, cli->args.word[0], answer);
	if (rc == 0 && cli->json)
		print_json(answer);
	else if (rc == 0)
		printf("tos join %s\n", tos_get_text(answer, "token", ""));
	tos_value_free(args);
	tos_value_free(answer);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_enroll = {
	.name = "enroll",
	.args = "KERNEL",
	.summary = "Let another host join under this name",
	.about = "Has the registrar make a token and prints the command to type on the other host. The token is good for one "
		 "kernel of that name and for a time; whoever has it can join, so hand it over as one does a password.",
	.examples = "tos enroll web3\tThen paste what it prints on that host\n"
		    "tos enroll web3 --address 192.0.2.1:21212\tWhere the registrar is reached from outside\n",
	.run = run_enroll,
	.min_args = 1,
	.max_args = 1,
	.options = {
		{ "replace", 0, NULL, "the name is enrolled already: the new host takes its place, the certificate that it has is "
				      "revoked" },
		{ "keep-old", 0, NULL, "with --replace: that certificate stays valid" },
		{ "expires", 0, "TIME", "how long the token is good, default 1h" },
		{ "address", 0, "HOST:PORT", "where the registrar can be reached; may be repeated; default what it "
					     "advertises" },
		AS,
	},
};

/* ---- join */

static int run_join(struct cli *cli)
{
	struct join j = { cli->args.word[0], cli_option(cli, "listen"),
		cli_option(cli, "advertise"), cli_timeout(cli, 30000) };
	AUTOBUF said = BUF_INIT;
	char name[64];
	int rc = 0;

	if (j.listen && !strchr(j.listen, ':'))
		return cli_usage(cli, "--listen %s is not ADDRESS:PORT", j.listen);
	rc = domain_join(cli->home, &j, name, &said, &cli->em);
	if (rc < 0)
		return cli_fail(cli, rc);
	if (cli->json) {
		struct tos_value *v = map_of("name", tos_text(name));

		print_json(v);
		tos_value_free(v);
		return EXIT_DONE;
	}
	fputs(buf_cstr(&said), stdout);
	puts("next        tos up");
	return EXIT_DONE;
}

const struct command command_join = {
	.name = "join",
	.args = "TOKEN",
	.summary = "Make this host a kernel of another domain, with a token of tos enroll",
	.about = "Makes a key, asks the registrar that the token names for a certificate, and writes the configuration of the "
		 "kernel. The token says which registrar can be believed. Done again after a failure it goes on "
		 "with the same key. 'tos up' then starts the kernel.",
	.examples = "tos join tos1.oWRuYW1l...\tAs printed by tos enroll\n"
		    "tos join tos1.oWRuYW1l... --advertise ''\tBehind NAT: this host only dials out\n",
	.run = run_join,
	.min_args = 1,
	.max_args = 1,
	.options = {
		{ "listen", 0, "ADDRESS:PORT", "where the kernel listens, default 0.0.0.0 and the port in its name, or 21212" },
		{ "advertise", 0, "HOST:PORT", "where others reach it; '' for not at all; default the address that the "
					       "registrar is reached from" },
	},
};
