/* tos extension: packages of extensions, and what is installed of them */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/bundle.h"
#include "lib/groups.h"
#include "lib/package.h"

#define PACKAGE_MAX ((size_t)32 << 20)

/* ---- build */

static void default_output(const char *path, char out[HOME_PATH_MAX])
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	if (n > 3 && strncmp(path + n - 3, ".so", 3) == 0)
		n -= 3;
	else if (n > 4 && strncmp(path + n - 4, ".lua", 4) == 0)
		n -= 4;
	snprintf(out, HOME_PATH_MAX, "%.*s.ext", (int)(n > 900 ? 900 : n), path);
}

static int source_of(struct cli *cli, const char *path, struct package_source *s)
{
	const char *expires = cli_option(cli, "expires");

	*s = (struct package_source){ .path = path,
		.name = cli_option(cli, "name"),
		.version = cli_option(cli, "release"),
		.in_kernel = cli_option(cli, "in-kernel") != NULL };
	if (expires && (text_duration(expires, &s->expires_ms) < 0 || s->expires_ms <= 0))
		return err_set(
			&cli->em, ERR_USAGE, "--expires %s is no time such as 90d", expires);
	return 0;
}

static int build(struct cli *cli, const char *path)
{
	const char *output = cli_option(cli, "output"), *key = cli_option(cli, "sign");
	struct package_source s;
	AUTOBUF package = BUF_MAX(PACKAGE_MAX);
	struct tos_value *v = NULL;
	char file[HOME_PATH_MAX];
	int rc = source_of(cli, path, &s);

	rc = rc ? rc
		: tos_principal_load(cli->home, key ? key : cli_option(cli, "as"),
			  &cli->principal, cli_err(cli));
	rc = rc ? rc : package_build(&s, cli->principal, &package, &cli->em);
	if (!output) {
		default_output(path, file);
		output = file;
	}
	rc = rc ? rc : bytes_write(output, package.data, package.len, 0644, &cli->em);
	/* On an officer's own machine there may be no root certificate to check it against. */
	if (rc == 0 && package_describe((struct slice){ package.data, package.len }, cli->home,
			       &v, NULL) < 0)
		v = tos_map();
	if (rc == 0 && cli->json) {
		tos_set(v, "file", tos_text(output));
		print_json(v);
	} else if (rc == 0)
		puts(output);
	tos_value_free(v);
	return rc;
}

/* ---- where */

/* The kernels of --hosts, or the one that is asked. */
static int hosts_of(struct cli *cli, struct names *out)
{
	const char *hosts = cli_option(cli, "hosts");
	struct tos_value *known = NULL, *entries = NULL;
	struct groups groups = { .value = NULL };
	struct names all = { NULL, 0 };
	int rc = cli_connect(cli);

	if (rc < 0 || !hosts)
		return rc ? rc : names_add(out, cli_kernel(cli));
	rc = cli_ask(cli, NULL, "KERNELS", NULL, &known);
	for (size_t i = 0; rc == 0 && i < tos_len(known); i++)
		rc = names_add(&all, tos_get_text(tos_at(known, i), "name", ""));
	rc = rc ? rc : groups_find(cli->connection, &groups, &cli->em);
	rc = rc ? rc : path_entries(hosts, &groups, &all, &entries, &cli->em);
	for (size_t i = 0; rc == 0 && i < tos_len(entries); i++)
		rc = names_add(out, tos_as_text(tos_at(entries, i), ""));
	names_fini(&all);
	groups_fini(&groups);
	tos_value_free(known);
	tos_value_free(entries);
	return rc;
}

/* One that fails keeps none of the others. */
static int each_host(struct cli *cli,
	int (*fn)(struct cli *cli, const char *kernel, void *arg, struct tos_value *rows),
	void *arg, struct tos_value *rows)
{
	struct names hosts = { NULL, 0 };
	int code = EXIT_DONE, rc = hosts_of(cli, &hosts);

	if (rc < 0)
		code = cli_fail(cli, rc);
	for (size_t i = 0; rc == 0 && i < hosts.n; i++) {
		int one = cli_connect_to(cli, hosts.v[i]);

		one = one ? one : fn(cli, hosts.v[i], arg, rows);
		if (one < 0) {
			err_wrap(&cli->em, one, "%s", hosts.v[i]);
			code = cli_fail(cli, one);
		}
	}
	names_fini(&hosts);
	return code;
}

/* ---- install, replace, remove */

struct sending {
	const char *file;
	struct slice package;
	const char *name, *mode;
};

/* For people the digests are hex. */
static void shown(struct tos_value *row)
{
	size_t n = 0;
	const uint8_t *digest = tos_get_bytes(row, "package", &n);
	char hex[65];

	if (digest && n == 32)
		tos_set(row, "package", tos_text(text_hex(digest, n, hex)));
}

static int push_answer(struct tos_value *answer, struct tos_value *rows)
{
	struct tos_value *row = tos_take_at(answer, 0);

	tos_value_free(answer);
	if (!row)
		return ERR_MALFORMED;
	shown(row);
	return tos_push(rows, row);
}

/* More than a post holds, to a kernel that is another machine's: by way of the content stores of
 * the one that we talk to and of that one, which fetches it. */
static int bring(struct cli *cli, const char *kernel, const struct sending *s)
{
	const char *at = cli->remote ? cli->kernel : tos_connection_kernel(cli->connection);
	struct tos_value *v = NULL, *args;
	uint32_t before = cli->timeout_ms;
	size_t n = 0;
	int rc;

	if (s->package.n <= PACKAGE_INLINE_BYTES ||
		strcmp(kernel, tos_connection_kernel(cli->connection)) == 0)
		return 0;
	rc = content_bring(cli, s->file, &v);
	if (rc == 0 && strcmp(at, kernel) != 0) {
		const uint8_t *digest = tos_get_bytes(v, "digest", &n);

		args = map_of("digest", tos_bytes(digest, n));
		tos_set(args, "from", tos_text(at));
		tos_set(args, "name", tos_text(tos_get_text(v, "name", "")));
		cli->timeout_ms = cli_timeout(cli, 300000);
		rc = cli_act(cli, kernel, "content-fetch", "Content", args, NULL);
		cli->timeout_ms = before;
	}
	tos_value_free(v);
	return rc;
}

static int send_one(struct cli *cli, const char *kernel, void *arg, struct tos_value *rows)
{
	const struct sending *s = arg;
	struct tos_value *answer = NULL;
	int rc = bring(cli, kernel, s);

	rc = rc ? rc
		: package_send(cli->connection, cli->principal, kernel, s->package, s->name,
			  s->mode, cli_timeout(cli, 40000), &answer, &cli->em);

	return rc ? rc : push_answer(answer, rows);
}

static int remove_one(struct cli *cli, const char *kernel, void *arg, struct tos_value *rows)
{
	struct tos_value *row = NULL;
	uint32_t before = cli->timeout_ms;
	int rc;

	cli->timeout_ms = cli_timeout(cli, 30000);
	rc = cli_act(cli, kernel, "remove-extension", arg, NULL, &row);
	cli->timeout_ms = before;
	if (rc < 0)
		return rc;
	shown(row);
	return tos_push(rows, row);
}

static void print_rows(const struct cli *cli, const struct tos_value *rows)
{
	if (!tos_len(rows))
		return;
	if (cli->json)
		print_json(rows);
	else
		table_print(rows,
			"kernel:KERNEL name:EXTENSION version:VERSION replaces:REPLACES "
			"officer:OFFICER by:BY",
			stdout);
}

static int send(struct cli *cli, const char *file, const char *mode)
{
	AUTOBUF package = BUF_MAX(PACKAGE_MAX);
	struct tos_value *v = NULL, *rows = tos_array();
	struct sending s = { .file = file, .mode = mode };
	int code, rc = bytes_read(file, PACKAGE_MAX, &package, &cli->em);

	s.package = (struct slice){ package.data, package.len };
	rc = rc ? rc : cli_principal(cli);
	/* Its name stands in the act. What is wrong with it the kernels say, and write down. */
	if (rc == 0 && package_name(s.package, &v, &cli->em) < 0)
		rc = err_wrap(&cli->em, ERR_MALFORMED, "%s", file);
	s.name = tos_as_text(v, "");
	code = rc ? cli_fail(cli, rc) : each_host(cli, send_one, &s, rows);
	print_rows(cli, rows);
	tos_value_free(rows);
	tos_value_free(v);
	return code;
}

static int take_away(struct cli *cli, const char *name)
{
	struct tos_value *rows = tos_array();
	int rc = cli_principal(cli);
	int code = rc ? cli_fail(cli, rc)
		      : each_host(cli, remove_one, (void *)(uintptr_t)name, rows);

	print_rows(cli, rows);
	tos_value_free(rows);
	return code;
}

/* ---- list */

static int list_one(struct cli *cli, const char *kernel, void *arg, struct tos_value *rows)
{
	struct tos_value *elements = tos_array(), *answer = NULL, *list;
	char dest[129];
	int rc;

	(void)arg;
	snprintf(dest, sizeof(dest), "%.64s/Extender", kernel);
	tos_push(elements, tos_map());
	rc = tos_ask(cli->connection, dest, "LIST", elements, cli_timeout(cli, 10000), NULL,
		&answer, cli_err(cli));
	tos_value_free(elements);
	list = rc ? NULL : tos_take_at(answer, 0);
	for (size_t i = 0; i < tos_len(list); i++) {
		struct tos_value *row = tos_value_copy(tos_at(list, i));

		tos_unset(row, "key");
		tos_push(rows, row);
	}
	tos_value_free(list);
	tos_value_free(answer);
	return rc;
}

static void inboxes_text(struct tos_value *row)
{
	const struct tos_value *inboxes = tos_get(row, "inboxes");
	AUTOBUF text = BUF_INIT;

	for (size_t i = 0; i < tos_len(inboxes); i++)
		buf_printf(&text, "%s%s", i ? "," : "",
			tos_get_text(tos_at(inboxes, i), "name", "?"));
	tos_set(row, "inboxes", tos_text(buf_cstr(&text)));
}

static int list(struct cli *cli)
{
	struct tos_value *rows = tos_array();
	int code = each_host(cli, list_one, NULL, rows);

	if (cli->json)
		print_json(rows);
	else {
		for (size_t i = 0; i < tos_len(rows); i++)
			inboxes_text(tos_at_mut(rows, i));
		table_print(rows,
			"kernel:KERNEL name:EXTENSION version:VERSION state:STATE where:WHERE "
			"source:SOURCE inboxes:INBOXES pid:PID restarts:RESTARTS",
			stdout);
	}
	tos_value_free(rows);
	return code;
}

static int run_extension(struct cli *cli)
{
	const char *verb = cli->args.n_word ? cli->args.word[0] : "list";
	const char *what = cli->args.n_word > 1 ? cli->args.word[1] : NULL;
	int rc;

	if (strcmp(verb, "list") == 0 && !what)
		return list(cli);
	if (strcmp(verb, "build") == 0 && what) {
		rc = build(cli, what);
		return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
	}
	if (strcmp(verb, "install") == 0 && what)
		return send(cli, what, cli_option(cli, "replace") ? "either" : "new");
	if (strcmp(verb, "replace") == 0 && what)
		return send(cli, what, "replace");
	if (strcmp(verb, "remove") == 0 && what)
		return take_away(cli, what);
	return cli_usage(cli,
		"it is 'tos extension list', 'build FILE', 'install PACKAGE', 'replace PACKAGE' "
		"or 'remove NAME'");
}

const struct command command_extension = {
	.name = "extension",
	.args = "list | build FILE | install PACKAGE | replace PACKAGE | remove NAME",
	.summary = "Make packages of extensions, install, replace and remove them on running kernels",
	.about =
		"It takes two: an officer signs the package, with build, and an administrator brings it, with install, replace "
		"or remove, each of which signs an act. Neither is enough alone, and one person cannot be both. Every refusal "
		"says why and stands in the audit log.\n\n"
		"build makes a package of a shared object, of a folder with one for each machine type, or of a Lua file: "
		"the name, version, privileges and inboxes that the extension declares go under the officer's signature. "
		"install starts the package in a process of its own beside the running kernel; only when it is ready, declares "
		"what its package says and is in the store does anybody see it. replace does the same in the place of a version "
		"that is there: what waits in its inboxes goes to the new version, in order, and the old one answers what it "
		"has taken before it ends. Whatever fails leaves what was there. remove takes its inboxes away and waits until "
		"its process is gone. All of it lasts over restarts, and is in a backup.\n\n"
		"What an extension may do is what its privileges say, and those must be granted by extender.privileges in "
		"tosd.conf(5); one that lives in the kernel's process must be named there by extender.kernel. Names and inboxes "
		"of the kernel and of its configured extensions cannot be taken.",
	.examples = "tos extension build greeter.so --sign olga --release 1.2\tThe officer's part\n"
		    "tos extension install greeter.ext --hosts @all\tThe administrator's part\n"
		    "tos extension replace greeter.ext\tAnother version\n"
		    "tos extension list\tWhat runs, and in which version\n"
		    "tos extension remove Greeter\tIts inboxes and process are gone\n",
	.run = run_extension,
	.max_args = 2,
	.words = "build install list remove replace",
	.options = {
		{ "sign", 0, "PRINCIPAL", "build: whose officer's key signs; default from domain.conf" },
		{ "output", 'o', "FILE", "build: where the package goes; default FILE with .ext" },
		{ "name", 0, "NAME", "build: what it is called, default its own name with a capital letter" },
		{ "release", 0, "VERSION", "build: which version it is, default 1" },
		{ "in-kernel", 0, NULL, "build: it is to live in the kernel's process" },
		{ "expires", 0, "TIME", "build: how long it can be installed, default 365d" },
		{ "hosts", 0, "HOSTS", "install, replace, remove, list: at these kernels, such as host0,host3 or @all" },
		{ "replace", 0, NULL, "install: replace a version that is there" },
		{ "as", 0, "PRINCIPAL", "who signs the act; default from domain.conf" },
	},
};
