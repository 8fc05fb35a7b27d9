/* tos principal */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/principal.h"
#include "lib/domain.h"
#include "seal/seal.h"

int principal_roles(struct cli *cli, unsigned otherwise, unsigned *out)
{
	const char *text;

	*out = 0;
	for (size_t it = 0; (text = args_next(&cli->args, "role", &it));)
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
	*out = *out ? *out : otherwise;
	return 0;
}

int principal_only(struct cli *cli, const char *name, char out[RIGHTS_BYTES])
{
	struct errmsg why = { "" };
	struct rights r;
	const char *text;
	size_t at = 0;

	out[0] = 0;
	for (size_t it = 0; (text = args_next(&cli->args, "restrict", &it));) {
		int n = snprintf(out + at, RIGHTS_BYTES - at, "%s%s", at ? "\n" : "", text);

		if (n < 0 || (size_t)n >= RIGHTS_BYTES - at)
			return err_set(&cli->em, ERR_USAGE,
				"restrictions take at most %d bytes together",
				RIGHTS_BYTES - 1);
		at += (size_t)n;
	}
	return out[0] && rights_parse(out, name, &r, &why) < 0
		       ? err_set(&cli->em, ERR_USAGE, "--restrict: %s", why.text)
		       : 0;
}

void print_only(const struct tos_value *only)
{
	for (size_t i = 0; i < tos_len(only); i++)
		printf("%-11s %s\n", i ? "" : "restricted", tos_as_text(tos_at(only, i), ""));
}

int principal_expires(struct cli *cli, int64_t *out_ms)
{
	const char *text = cli_option(cli, "expires");

	*out_ms = 365 * (int64_t)86400000;
	if (text && (text_duration(text, out_ms) < 0 || *out_ms <= 0))
		return err_set(
			&cli->em, ERR_USAGE, "--expires %s is no time such as 365d", text);
	return 0;
}

/* An officer's key is the second of two: who has the root key must not have it too. */
static int may_make_key(struct cli *cli, const char *name, unsigned roles)
{
	if (!(roles & ROLE_OFFICER) || cli_option(cli, "here"))
		return 0;
	return err_set(&cli->em, ERR_USAGE,
		"an officer's key is made on the officer's own machine: 'tos principal request %s "
		"--role officer' there, then 'tos principal sign' here; --here makes it here all "
		"the same",
		name);
}

/* A new key in the place of the old one, which is revoked everywhere. */
static int principal_replace(struct cli *cli, const struct home *h, const char *name,
	unsigned roles, const char *only, int64_t ms)
{
	struct tos_value *serials = tos_array();
	uint64_t number;
	int rc = domain_principal_replace(h, name, roles, only, ms, serials, &cli->em);

	rc = rc ? rc : revoke_serials(cli, h, serials, &number);
	tos_value_free(serials);
	return rc;
}

static int principal_add(struct cli *cli, const struct home *h, const char *name)
{
	char only[RIGHTS_BYTES];
	unsigned roles;
	int64_t ms;
	int rc = principal_roles(cli, ROLE_OWNER | ROLE_AUTHOR, &roles);

	rc = rc ? rc : principal_only(cli, name, only);
	rc = rc ? rc : principal_expires(cli, &ms);
	rc = rc ? rc : may_make_key(cli, name, roles);
	if (rc == 0 && cli_option(cli, "replace"))
		rc = principal_replace(cli, h, name, roles, only, ms);
	else
		rc = rc ? rc : domain_principal_add(h, name, roles, only, ms, &cli->em);
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
	char now[CLOCK_TEXT_BYTES];
	int rc = domain_principals(h, &list, &cli->em);

	clock_text(clock_wall_ms(), now);
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
			tos_text(tos_get_bool(p, "revoked", false)                  ? "revoked"
				 : strcmp(tos_get_text(p, "expires", ""), now) <= 0 ? "expired"
										    : "valid"));
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

/* Admins whose certificate holds now, `but` left out; *is: whether that one is. */
static size_t other_admins(const struct tos_value *list, const char *but, bool *is)
{
	char now[CLOCK_TEXT_BYTES];
	size_t n = 0;

	clock_text(clock_wall_ms(), now);
	*is = false;
	for (size_t i = 0; i < tos_len(list); i++) {
		const struct tos_value *p = tos_at(list, i), *roles = tos_get(p, "roles");
		bool admin = false;

		for (size_t k = 0; k < tos_len(roles); k++)
			admin |= strcmp(tos_as_text(tos_at(roles, k), ""), "admin") == 0;
		if (!admin || tos_get_bool(p, "revoked", false) ||
			strcmp(tos_get_text(p, "expires", ""), now) <= 0)
			continue;
		if (strcmp(tos_get_text(p, "name", ""), but) == 0)
			*is = true;
		else
			n++;
	}
	return n;
}

/* There is no way back: who would lock everybody out, or this command, says so twice. */
static int may_revoke(struct cli *cli, const struct home *h, const char *name)
{
	const char *as = cli_option(cli, "as");
	struct tos_value *list = NULL;
	size_t others;
	bool is;

	if (cli_option(cli, "force") || domain_principals(h, &list, NULL) < 0)
		return 0;
	others = other_admins(list, name, &is);
	tos_value_free(list);
	if (is && others == 0)
		return err_set(&cli->em, ERR_STATE,
			"%s is the last admin that is known here: nobody could act on carriers and "
			"kernels of others any more. Make another first ('tos principal add NAME "
			"--role admin'), or give this one a new key ('tos principal add %s --role "
			"admin --replace'); --force revokes it all the same",
			name, name);
	if (strcmp(h->principal, name) == 0 || (as && strcmp(as, name) == 0))
		return err_set(&cli->em, ERR_STATE,
			"%s signs for this command: its carriers would be killed, and nothing "
			"launched or changed from here any more (domain.conf says who signs by "
			"default); --force revokes it all the same",
			name);
	return 0;
}

static int principal_revoke(struct cli *cli, const struct home *h, const char *name)
{
	struct tos_value *serials = tos_array();
	uint64_t number = 0;
	int rc = domain_serials(h, false, name, serials, &cli->em);

	rc = rc ? rc : may_revoke(cli, h, name);
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

static int principal_renew(struct cli *cli, const struct home *h, const char *name)
{
	int64_t ms;
	int rc = principal_expires(cli, &ms);

	rc = rc ? rc : domain_principal_renew(h, name, ms, &cli->em);
	if (rc == 0 && cli->json) {
		struct tos_value *v = map_of("name", tos_text(name));

		print_json(v);
		tos_value_free(v);
	} else if (rc == 0)
		printf("%s has a new certificate for its key, %s/keys/%s/cert\n", name, h->path,
			name);
	return rc;
}

/* The same list under the next number, of now: for kernels that no registrar can tell. */
static int principal_refresh(struct cli *cli, const struct home *h)
{
	struct tos_value *none = tos_array();
	uint64_t number = 0;
	int rc = revoke_serials(cli, h, none, &number);

	tos_value_free(none);
	if (rc == 0 && cli->json) {
		struct tos_value *v = map_of("number", tos_int((int64_t)number));

		print_json(v);
		tos_value_free(v);
	} else if (rc == 0)
		printf("the revocation list is signed anew (list %llu)\n",
			(unsigned long long)number);
	return rc;
}

/* ---- show: what each has used, per kernel and in all */

static const char *const used_keys[] = { "cpu_ms", "memory_byte_seconds", "sent_bytes",
	"received_bytes", "moved_bytes", "posts", "carriers", "stays", "here", "disk_bytes",
	"content_bytes" };

static void add_used(struct tos_value *sum, const struct tos_value *row)
{
	for (size_t i = 0; i < ARRAY_LEN(used_keys); i++)
		tos_set(sum, used_keys[i],
			tos_int(tos_get_int(sum, used_keys[i], 0) +
				tos_get_int(row, used_keys[i], 0)));
}

/* Rows of every kernel of the domain that answers; the names of the others into `silent`. */
static int used_rows(struct cli *cli, const char *principal, struct tos_value *rows,
	struct tos_value *silent)
{
	struct tos_value *kernels = NULL;
	int rc = cli_ask(cli, NULL, "KERNELS", NULL, &kernels);

	for (size_t i = 0; rc == 0 && i < tos_len(kernels); i++) {
		const char *name = tos_get_text(tos_at(kernels, i), "name", "");
		struct tos_value *answer = NULL;
		int one = cli_connect_to(cli, name);

		one = one ? one
			  : cli_ask(cli, name, "ACCOUNTS",
				    map_of("principal", tos_text(principal)), &answer);
		for (size_t k = 0; one == 0 && k < tos_len(answer); k++)
			tos_push(rows, tos_value_copy(tos_at(answer, k)));
		if (one < 0) {
			fprintf(stderr, "tos principal: %s: %s\n", name,
				err_show(one, &cli->em));
			tos_push(silent, tos_text(name));
		}
		tos_value_free(answer);
	}
	tos_value_free(kernels);
	return rc;
}

/* {kernels: [rows], used: sum} of one of them. */
static void used_of(struct tos_value *p, const char *principal, const struct tos_value *rows)
{
	struct tos_value *mine = tos_array(), *sum = tos_map();

	for (size_t i = 0; i < ARRAY_LEN(used_keys); i++)
		tos_set(sum, used_keys[i], tos_int(0));
	for (size_t i = 0; i < tos_len(rows); i++)
		if (strcmp(tos_get_text(tos_at(rows, i), "principal", ""), principal) == 0) {
			struct tos_value *row = tos_value_copy(tos_at(rows, i));

			tos_unset(row, "principal");
			add_used(sum, row);
			tos_push(mine, row);
		}
	tos_set(p, "kernels", mine);
	tos_set(p, "used", sum);
}

/* 812, 5.3K, 64.0M: for people. */
static struct tos_value *size_value(int64_t bytes)
{
	static const char units[] = "KMGTP";
	double v = (double)bytes;
	size_t i = 0;

	if (bytes < 1024)
		return tos_textf("%lld", (long long)bytes);
	for (v /= 1024; v >= 1024 && i + 2 < sizeof(units); i++)
		v /= 1024;
	return tos_textf("%.1f%c", v, units[i]);
}

static void shown_row(struct tos_value *table, const char *principal, const char *kernel,
	const struct tos_value *u)
{
	static const char *const sizes[] = { "sent_bytes", "received_bytes", "moved_bytes",
		"disk_bytes", "content_bytes", "memory_byte_seconds" };
	struct tos_value *row = tos_value_copy(u);

	tos_set(row, "principal", tos_text(principal));
	tos_set(row, "kernel", tos_text(kernel));
	tos_set(row, "cpu", tos_textf("%.3fs", (double)tos_get_int(u, "cpu_ms", 0) / 1000));
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		tos_set(row, sizes[i], size_value(tos_get_int(u, sizes[i], 0)));
	tos_push(table, row);
}

static void print_used(const struct tos_value *list)
{
	struct tos_value *table = tos_array();

	for (size_t i = 0; i < tos_len(list); i++) {
		const struct tos_value *p = tos_at(list, i), *kernels = tos_get(p, "kernels");
		const char *name = tos_get_text(p, "name", "?");

		for (size_t k = 0; k < tos_len(kernels); k++)
			shown_row(table, name, tos_get_text(tos_at(kernels, k), "kernel", "?"),
				tos_at(kernels, k));
		shown_row(table, name, "all", tos_get(p, "used"));
	}
	table_print(table,
		"principal:PRINCIPAL kernel:KERNEL cpu:CPU memory_byte_seconds:MEMORY*S "
		"sent_bytes:SENT received_bytes:RECEIVED moved_bytes:MOVED posts:POSTS "
		"carriers:CARRIERS here:HERE disk_bytes:DISK content_bytes:CONTENT",
		stdout);
	tos_value_free(table);
}

/* The certificate's side, where it is known here. */
static struct tos_value *principal_of(const struct tos_value *list, const char *name)
{
	for (size_t i = 0; i < tos_len(list); i++)
		if (strcmp(tos_get_text(tos_at(list, i), "name", ""), name) == 0)
			return tos_value_copy(tos_at(list, i));
	return map_of("name", tos_text(name));
}

static bool names_has(const struct tos_value *list, const char *name)
{
	for (size_t i = 0; i < tos_len(list); i++)
		if (strcmp(tos_get_text(tos_at(list, i), "name", ""), name) == 0)
			return true;
	return false;
}

static int principal_show(struct cli *cli, const struct home *h, const char *name)
{
	struct tos_value *known = NULL, *rows = tos_array(), *silent = tos_array(),
			 *out = tos_array();
	int rc;

	if (domain_principals(h, &known, NULL) < 0)
		known = tos_array();
	rc = used_rows(cli, name ? name : "", rows, silent);
	for (size_t i = 0; rc == 0 && !name && i < tos_len(known); i++)
		tos_push(out, tos_value_copy(tos_at(known, i)));
	for (size_t i = 0; rc == 0 && !name && i < tos_len(rows); i++)
		if (!names_has(out, tos_get_text(tos_at(rows, i), "principal", "")))
			tos_push(out, principal_of(known,
					      tos_get_text(tos_at(rows, i), "principal", "")));
	if (rc == 0 && name && !names_has(known, name) && !tos_len(rows))
		rc = err_set(&cli->em, ERR_NOT_FOUND,
			"no principal %s is known here, and no kernel has an account of it; "
			"'tos principal list' has those of this domain",
			name);
	if (rc == 0 && name)
		tos_push(out, principal_of(known, name));
	for (size_t i = 0; i < tos_len(out); i++) {
		struct tos_value *p = tos_at_mut(out, i);

		tos_unset(p, "serial");
		used_of(p, tos_get_text(p, "name", ""), rows);
		if (tos_len(silent))
			tos_set(p, "without", tos_value_copy(silent));
	}
	if (rc == 0 && cli->json)
		print_json(name ? tos_at(out, 0) : out);
	else if (rc == 0) {
		if (name)
			print_only(tos_get(tos_at(out, 0), "only"));
		print_used(out);
	}
	tos_value_free(known);
	tos_value_free(rows);
	tos_value_free(silent);
	tos_value_free(out);
	return rc;
}

static int run_principal(struct cli *cli)
{
	const char *verb = cli->args.n_word ? cli->args.word[0] : "list";
	const char *name = cli->args.n_word > 1 ? cli->args.word[1] : NULL;
	bool request = strcmp(verb, "request") == 0 && name;
	bool import = strcmp(verb, "import") == 0 && name;
	struct home h;
	int rc;

	if (request || import) { /* where no domain need be known yet */
		rc = request ? principal_key_request(cli, name)
			     : principal_key_import(cli, name);
		return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
	}
	rc = home_open(cli->home, &h, &cli->em);
	if (rc < 0)
		return cli_fail(cli, rc);
	if (strcmp(verb, "list") == 0 && !name)
		rc = principal_list(cli, &h);
	else if (strcmp(verb, "show") == 0)
		rc = principal_show(cli, &h, name);
	else if (strcmp(verb, "add") == 0 && name)
		rc = principal_add(cli, &h, name);
	else if (strcmp(verb, "sign") == 0 && name)
		rc = principal_key_sign(cli, &h, name);
	else if (strcmp(verb, "revoke") == 0 && name)
		rc = principal_revoke(cli, &h, name);
	else if (strcmp(verb, "renew") == 0 && name)
		rc = principal_renew(cli, &h, name);
	else if (strcmp(verb, "refresh") == 0 && !name)
		rc = principal_refresh(cli, &h);
	else
		return cli_usage(cli,
			"it is 'tos principal list', 'show [NAME]', 'add NAME', 'request NAME', "
			"'sign FILE', 'import FILE', 'renew NAME', 'revoke NAME' or 'refresh'");
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_principal = {
	.name = "principal",
	.args = "list | show [NAME] | add NAME | request NAME | sign FILE | import FILE | renew NAME | revoke NAME | refresh",
	.summary = "Add, list and revoke those who sign code and launches, and show what they used",
	.about = "A principal is a key with a certificate of the domain's root that names its roles: an author may sign code, an "
		 "owner may launch it, an admin may act on carriers and kernels of others, an officer may approve what policy "
		 "asks a second signature for. Adding and revoking need the root key. A revoked owner's carriers are "
		 "killed; the last admin, and who signs for this command, is revoked with --force only. To change roles, or after a key was lost, say add --replace; before a certificate runs out, renew: it "
		 "gives the same key a new one. Refresh signs the revocation list anew, for kernels that hear from no registrar.\n\n"
		 "--restrict puts into the certificate itself what its holder may at most, whatever hosts allow: as owner, the carriers "
		 "launched with it; as author, the carriers whose code it signed, whoever launches them; in person, its acts. A rule is "
		 "'allow|deny ACTION[,ACTION]... OBJECT' in the words of policy, * for all; up to 16 of them. With any, what none of "
		 "them allows is denied, so the everyday actions have to be named: launch, arrive, post, clone. Renewing keeps them; "
		 "show prints them, and 'tos can' takes them into account.\n\n"
		 "Adding makes the key where the root key is. Who wants a key that nobody else ever had, and every officer, says "
		 "request on their own machine, which needs no kernel and no domain: it makes the key, under TOS_PASSPHRASE if "
		 "that is set, and a signing request. Sign, where the root key is, makes the certificate of it, with the roles "
		 "asked for or those of --role; compare the fingerprint of the key that both print, or give it with "
		 "--fingerprint. Import puts the certificate beside its key. Afterwards renew and revoke are for it as for others; what "
		 "renew makes is imported again.\n\n"
		 "show prints the accounts: what the carriers of each principal have used at each kernel of the domain that "
		 "answers, and in all: CPU time, memory times seconds, bytes that they posted and that were delivered to them, "
		 "bytes of carriers that left for other kernels, folders posted, carriers launched or arrived, how many are "
		 "there now, and what they take on disk. Accounts outlive carriers and restarts; a crash of a kernel forgets at "
		 "most half a minute.",
	.examples = "tos principal show alice\tWhat alice's carriers have used\n"
		    "tos principal add alice --role admin --replace\tOther roles, with a new key\n"
		    "tos principal add alice --role owner,author\tSomebody who writes carriers and launches them\n"
		    "tos principal add vera --restrict 'allow launch,arrive,post,read *'\tWhose carriers may look and change nothing\n"
		    "tos principal request olga --role officer\tOn olga's machine: a key, and a request for its certificate\n"
		    "tos principal sign request\tWhere the root key is\n"
		    "tos principal import cert\tOn olga's machine again\n"
		    "tos principal renew alice --expires 90d\tThe same key for another three months\n"
		    "tos principal revoke alice\tNo longer\n",
	.run = run_principal,
	.max_args = 2,
	.words = "add import list refresh renew request revoke show sign",
	.options = {
		{ "role", 0, "ROLE[,ROLE]...", "admin, owner, author, officer; default owner,author" },
		{ "restrict", 0, "RULE", "add, sign: it may at most what such rules allow, 'allow|deny ACTION[,ACTION]... OBJECT'; may be repeated" },
		{ "expires", 0, "TIME", "how long the certificate is good, default 365d" },
		{ "replace", 0, NULL, "add, sign: a new key and these roles for one that is there; the old key is revoked" },
		{ "here", 0, NULL, "add: make an officer's key here all the same" },
		{ "force", 0, NULL, "revoke: the last admin, or who signs for this command, all the same" },
		{ "fingerprint", 0, "HEX", "sign: refuse any other key; the first 16 digits will do" },
		{ "as", 0, "PRINCIPAL", "who signs the act; default from domain.conf" },
	},
};
