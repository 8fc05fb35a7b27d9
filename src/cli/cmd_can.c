/* tos can */
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/domain.h"
#include "seal/seal.h"

/* "alice" of "principal:alice" and "carrier-of:alice"; NULL where no principal is meant. */
static const char *principal_in(const char *who)
{
	const char *colon = strchr(who, ':');

	if (!colon)
		return who;
	return strncmp(who, "principal:", 10) == 0 || strncmp(who, "carrier-of:", 11) == 0
		       ? colon + 1
		       : NULL;
}

/* What the certificate says, unless --role does. */
static int roles_find(struct cli *cli, const char *who, struct tos_value *roles)
{
	const char *word, *name = principal_in(who);
	struct tos_value *known = NULL;
	struct home h;
	bool found = false;

	for (size_t it = 0; (word = args_next(&cli->args, "role", &it)); found = true)
		tos_push(roles, tos_text(word));
	if (found || !name)
		return 0;
	if (home_open(cli->home, &h, NULL) == 0 && domain_principals(&h, &known, NULL) == 0)
		for (size_t i = 0; i < tos_len(known) && !found; i++) {
			const struct tos_value *of = tos_get(tos_at(known, i), "roles");

			found = strcmp(tos_get_text(tos_at(known, i), "name", ""), name) == 0;
			for (size_t k = 0; found && k < tos_len(of); k++)
				tos_push(roles, tos_value_copy(tos_at(of, k)));
		}
	tos_value_free(known);
	return found ? 0
		     : err_set(&cli->em, ERR_NOT_FOUND,
			       "there is no certificate of %s here ('tos principal list'), so say "
			       "--role",
			       name);
}

/* The restrictions in the certificate of `name`, if that is known here, into args. */
static void only_find(
	struct cli *cli, const char *name, struct tos_value *args, const char *key)
{
	struct tos_value *known = NULL;
	AUTOBUF text = BUF_INIT;
	struct home h;

	if (!name || home_open(cli->home, &h, NULL) < 0 ||
		domain_principals(&h, &known, NULL) < 0)
		return;
	for (size_t i = 0; i < tos_len(known); i++) {
		const struct tos_value *only = tos_get(tos_at(known, i), "only");

		if (strcmp(tos_get_text(tos_at(known, i), "name", ""), name) != 0)
			continue;
		for (size_t k = 0; k < tos_len(only); k++)
			buf_printf(
				&text, "%s%s", k ? "\n" : "", tos_as_text(tos_at(only, k), ""));
	}
	tos_value_free(known);
	if (text.len)
		tos_set(args, key, tos_text(buf_cstr(&text)));
}

static void print_answer(const struct tos_value *answer)
{
	const struct tos_value *rules = tos_get(answer, "rules");

	printf("%s at %s: %s\n", tos_get_bool(answer, "allowed", false) ? "allowed" : "denied",
		tos_get_text(answer, "kernel", "?"), tos_get_text(answer, "why", ""));
	for (size_t i = 0; i < tos_len(rules); i++) {
		const struct tos_value *r = tos_at(rules, i);

		printf("%s %s    (%s)\n", i ? " " : "*", tos_get_text(r, "rule", ""),
			tos_get_text(r, "at", ""));
	}
	for (size_t i = 0; i < tos_len(tos_get(answer, "restrictions")); i++) {
		const struct tos_value *r = tos_at(tos_get(answer, "restrictions"), i);

		printf("%s %s\n", tos_get_bool(r, "allows", false) ? "+" : "-",
			tos_get_text(r, "restriction", ""));
	}
}

static int run_can(struct cli *cli)
{
	const char *who = cli->args.word[0], *owner = cli_option(cli, "owner");
	struct tos_value *args = tos_map(), *roles = tos_array(), *answer = NULL;
	bool allowed = false;
	int rc = roles_find(cli, who, roles);

	tos_set(args, "who", tos_text(who));
	tos_set(args, "action", tos_text(cli->args.word[1]));
	tos_set(args, "object", tos_text(cli->args.n_word > 2 ? cli->args.word[2] : ""));
	tos_set(args, "roles", roles);
	if (cli_option(cli, "author"))
		tos_set(args, "author", tos_text(cli_option(cli, "author")));
	if (owner)
		tos_set(args, "owner", tos_text(owner));
	only_find(cli, principal_in(who), args, "only");
	only_find(cli, cli_option(cli, "author"), args, "author_only");
	if (rc < 0)
		tos_value_free(args);
	else
		rc = cli_ask(cli, NULL, "CAN", args, &answer);
	if (rc == 0) {
		allowed = tos_get_bool(answer, "allowed", false);
		if (cli->json)
			print_json(answer);
		else
			print_answer(answer);
	}
	tos_value_free(answer);
	if (rc < 0)
		return cli_fail(cli, rc);
	return allowed ? EXIT_DONE : EXIT_DENIED;
}

const struct command command_can = {
	.name = "can",
	.args = "WHO ACTION [OBJECT]",
	.summary = "Ask a kernel's firewall whether somebody may do something, and why",
	.about = "WHO is a principal's name, with the roles of its certificate in this TOS_HOME or those of --role; carrier-of:NAME for "
		 "what carriers of that owner may do; kernel:NAME; class:carrier, client, extension or kernel. ACTION is a word of the "
		 "rules, such as post, launch, arrive, kill; OBJECT an inbox, a kernel or another name as rules have them, owner:... "
		 "being given with --owner. The restrictions in the certificates of WHO and of --author count as well, where this "
		 "TOS_HOME has those.\n\n"
		 "Prints the rules that speak of it, the one that decides marked and first, and where each stands. The exit code is 0 "
		 "if it is allowed, 3 if not. Limits, revocation and what an extension itself refuses are not asked.",
	.examples = "tos can alice launch\tMay she launch at the default kernel?\n"
		    "tos can carrier-of:alice post Monitor --kernel host3\tAnd her carriers ask Monitor there?\n"
		    "tos can alice kill host0#42 --owner bob\tA carrier of bob's\n",
	.run = run_can,
	.min_args = 2,
	.max_args = 3,
	.words = "principal: carrier-of: kernel: class:carrier class:client class:extension class:kernel",
	.options = {
		{ "role", 0, "ROLE", "instead of the certificate's: admin, owner, author, officer; may be repeated" },
		{ "owner", 0, "PRINCIPAL", "whose carrier the object is" },
		{ "author", 0, "PRINCIPAL", "who signed the code of the carrier that asks" },
	},
};
