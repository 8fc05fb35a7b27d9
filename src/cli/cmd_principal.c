/* tos principal */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/domain.h"
#include "seal/seal.h"

int revoke_serials(struct cli *cli, const struct home *h, const struct tos_value *serials,
	uint64_t *number);

static int parse_roles(struct cli *cli, unsigned *out)
{
	const char *text, *all = "owner,author";

	*out = 0;
	for (size_t it = 0;
		(text = args_next(&cli->args, "role", &it)) || (!*out && (text = all));)
		while (*text) {
			char word[32];
			size_t n = strcspn(text, ",");
			unsigned role;

			snprintf(word, sizeof(word), "%.*s", (int)(n > 31 ? 31 : n), text);
			role = role_parse(word);
			if (!role)
				return err_set(&cli->em, ERR_USAGE,
					"there is no role %s; there are admin, owner, author, "
					"officer",
					word);
			*out |= role;
			text += n + (text[n] == ',');
		}
	return 0;
}

/* A new key in the place of the old one, which is revoked everywhere. */
static int principal_replace(
	struct cli *cli, const struct home *h, const char *name, unsigned roles, int64_t ms)
{
	struct tos_value *serials = tos_array();
	uint64_t number;
	int rc = domain_principal_replace(h, name, roles, ms, serials, &cli->em);

	rc = rc ? rc : revoke_serials(cli, h, serials, &number);
	tos_value_free(serials);
	return rc;
}

static int principal_add(struct cli *cli, const struct home *h, const char *name)
{
	const char *expires = cli_option(cli, "expires");
	int64_t ms = 365 * (int64_t)86400000;
	unsigned roles;
	int rc = parse_roles(cli, &roles);

	if (rc == 0 && expires && (text_duration(expires, &ms) < 0 || ms <= 0))
		rc = err_set(
			&cli->em, ERR_USAGE, "--expires %s is no time such as 365d", expires);
	if (rc == 0 && cli_option(cli, "replace"))
		rc = principal_replace(cli, h, name, roles, ms);
	else
		rc = rc ? rc : domain_principal_add(h, name, roles, ms, &cli->em);
	if (rc < 0)
		return rc;
	if (cli->json) {
		struct tos_value *v = map_of("name", tos_text(name));

		print_json(v);
		tos_value_free(v);
	} else
		printf("principal   %s, %s/keys/%s; give that folder to whom it is for\n", name,
			h->path, name);
	return 0;
}

static int principal_list(struct cli *cli, const struct home *h)
{
	struct tos_value *list = NULL, *rows = tos_array();
	int rc = domain_principals(h, &list, &cli->em);

	for (size_t i = 0; rc == 0 && i < tos_len(list); i++) {
		const struct tos_value *p = tos_at(list, i), *roles = tos_get(p, "roles");
		struct tos_value *row = map_of("name", tos_text(tos_get_text(p, "name", "?")));
		AUTOBUF words = BUF_INIT;

		for (size_t k = 0; k < tos_len(roles); k++)
			buf_printf(&words, "%s%s", k ? "," : "",
				tos_as_text(tos_at(roles, k), ""));
		tos_set(row, "roles", tos_text(buf_cstr(&words)));
		tos_set(row, "expires", tos_textf("%.10s", tos_get_text(p, "expires", "")));
		tos_set(row, "state",
			tos_text(tos_get_bool(p, "revoked", false) ? "revoked" : "valid"));
		tos_push(rows, row);
	}
	if (rc == 0 && cli->json)
		print_json(list);
	else if (rc == 0)
		table_print(
			rows, "name:PRINCIPAL roles:ROLES expires:EXPIRES state:STATE", stdout);
	tos_value_free(list);
	tos_value_free(rows);
	return rc;
}

static int principal_revoke(struct cli *cli, const struct home *h, const char *name)
{
	struct tos_value *serials = tos_array();
	uint64_t number = 0;
	int rc = domain_serials(h, false, name, serials, &cli->em);

	rc = rc ? rc : revoke_serials(cli, h, serials, &number);
	tos_value_free(serials);
	if (rc == 0 && cli->json) {
		struct tos_value *v = map_of("number", tos_int((int64_t)number));

		print_json(v);
		tos_value_free(v);
	} else if (rc == 0)
		printf("%s is revoked (list %llu)\n", name, (unsigned long long)number);
	return rc;
}

static int run_principal(struct cli *cli)
{
	const char *verb = cli->args.n_word ? cli->args.word[0] : "list";
	const char *name = cli->args.n_word > 1 ? cli->args.word[1] : NULL;
	struct home h;
	int rc = home_open(cli->home, &h, &cli->em);

	if (rc < 0)
		return cli_fail(cli, rc);
	if (strcmp(verb, "list") == 0 && !name)
		rc = principal_list(cli, &h);
	else if (strcmp(verb, "add") == 0 && name)
		rc = principal_add(cli, &h, name);
	else if (strcmp(verb, "revoke") == 0 && name)
		rc = principal_revoke(cli, &h, name);
	else
		return cli_usage(cli, "it is 'tos principal list', 'tos principal add NAME' or "
				      "'tos principal revoke NAME'");
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_principal = {
	.name = "principal",
	.args = "list | add NAME | revoke NAME",
	.summary = "Add, list and revoke those who sign code and launches",
	.about = "A principal is a key with a certificate of the domain's root that names its roles: an author may sign code, an "
		 "owner may launch it, an admin may act on carriers and kernels of others, an officer may approve what policy "
		 "asks a second signature for. Adding and revoking need the root key. A revoked owner's carriers are "
		 "killed. To change roles, or after a key was lost, say add --replace.",
	.examples = "tos principal add alice --role admin --replace\tOther roles, with a new key\n"
		    "tos principal add alice --role owner,author\tSomebody who writes carriers and launches them\n"
		    "tos principal revoke alice\tNo longer\n",
	.run = run_principal,
	.max_args = 2,
	.words = "add list revoke",
	.options = {
		{ "role", 0, "ROLE[,ROLE]...", "admin, owner, author, officer; default owner,author" },
		{ "expires", 0, "TIME", "how long the certificate is good, default 365d" },
		{ "replace", 0, NULL, "add: a new key and these roles for one that is there; the old key is revoked" },
		{ "as", 0, "PRINCIPAL", "who signs the act; default from domain.conf" },
	},
};
