/* tos principal request, sign, import: a key that stays where it was made. */
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/principal.h"
#include "lib/domain.h"
#include "seal/seal.h"

static struct tos_value *roles_value(unsigned roles)
{
	struct tos_value *list = tos_array();

	for (unsigned bit = 1; bit <= ROLE_OFFICER; bit <<= 1)
		if (roles & bit)
			tos_push(list, tos_text(role_word((enum role)bit)));
	return list;
}

static void say(
	struct cli *cli, const struct principal_request *r, const char *what, const char *then)
{
	struct tos_value *v = tos_map(), *roles = roles_value(r->roles),
			 *only = principal_only_value(r->only);

	if (cli->json) {
		tos_set(v, "name", tos_text(r->name));
		tos_set(v, "roles", STEAL(roles));
		if (tos_len(only))
			tos_set(v, "only", tos_value_copy(only));
		tos_set(v, "fingerprint", tos_text(r->fingerprint));
		tos_set(v, "file", tos_text(r->path));
		print_json(v);
	} else {
		printf("principal   %s, roles", r->name);
		for (size_t i = 0; i < tos_len(roles); i++)
			printf("%s %s", i ? "," : "", tos_as_text(tos_at(roles, i), ""));
		putchar('\n');
		print_only(only);
		printf("key         SHA-256 %s\n%-11s %s; %s\n", r->fingerprint, what, r->path,
			then);
	}
	tos_value_free(only);
	tos_value_free(roles);
	tos_value_free(v);
}

int principal_key_request(struct cli *cli, const char *name)
{
	struct principal_request r;
	unsigned roles;
	int rc = principal_roles(cli, ROLE_OWNER | ROLE_AUTHOR, &roles);

	rc = rc ? rc : principal_request(cli->home, name, roles, &r, &cli->em);
	if (rc == 0)
		say(cli, &r, "request",
			"take it to where the root key is and say 'tos principal sign' there");
	return rc;
}

/* The two ends may have compared by telephone: then the fingerprint is given, or its beginning. */
static int is_expected(struct cli *cli, const struct principal_request *r)
{
	const char *want = cli_option(cli, "fingerprint");
	size_t n = want ? strlen(want) : 0;

	if (want && (n < 16 || n > 64 || strncasecmp(want, r->fingerprint, n) != 0))
		return err_set(&cli->em, n < 16 || n > 64 ? ERR_USAGE : ERR_DENIED,
			n < 16 || n > 64
				? "a fingerprint has 64 digits, and the first 16 of them must "
				  "be given (%s)"
				: "the key in the request has the fingerprint %s",
			n < 16 || n > 64 ? want : r->fingerprint);
	return 0;
}

int principal_key_sign(struct cli *cli, const struct home *h, const char *file)
{
	struct tos_value *serials = tos_array();
	struct principal_request r;
	uint64_t number;
	int64_t ms;
	int rc = principal_expires(cli, &ms);

	rc = rc ? rc : principal_request_read(file, &r, &cli->em);
	rc = rc ? rc : principal_roles(cli, r.roles, &r.roles);
	rc = rc ? rc : principal_only(cli, r.name, r.only);
	rc = rc ? rc : is_expected(cli, &r);
	if (rc == 0 && cli_option(cli, "replace")) {
		rc = domain_principal_sign_replace(h, &r, ms, serials, &cli->em);
		rc = rc ? rc : revoke_serials(cli, h, serials, &number);
	} else
		rc = rc ? rc : domain_principal_sign(h, &r, ms, &cli->em);
	if (rc == 0)
		say(cli, &r, "certificate", "give it back, for 'tos principal import'");
	tos_value_free(serials);
	return rc;
}

int principal_key_import(struct cli *cli, const char *file)
{
	struct principal_request r;
	int rc = principal_import(cli->home, file, &r, &cli->em);

	if (rc == 0)
		say(cli, &r, "certificate", "its key never left this machine");
	return rc;
}
