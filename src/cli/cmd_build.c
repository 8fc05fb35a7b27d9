/* tos build, verify */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/bundle.h"

static void default_output(const char *file, char out[HOME_PATH_MAX])
{
	size_t n = strlen(file);

	if (n > 4 && strcmp(file + n - 4, ".lua") == 0)
		n -= 4;
	snprintf(out, HOME_PATH_MAX, "%.*s.bundle", (int)(n > 900 ? 900 : n), file);
}

/* "-": standard output. */
static int save(struct cli *cli, const char *output)
{
	if (strcmp(output, "-") == 0)
		return tos_shell_write(cli->shell, STDOUT_FILENO, cli_err(cli));
	return tos_shell_save(cli->shell, output, cli_err(cli));
}

static int run_build(struct cli *cli)
{
	const char *file = cli->args.word[0], *output = cli_option(cli, "output"),
		   *name = cli_option(cli, "name");
	char path[HOME_PATH_MAX];
	int rc = tos_shell_file(file, &cli->shell, cli_err(cli));

	rc = rc || !name ? rc : tos_shell_option(cli->shell, "name", name, cli_err(cli));
	rc = rc ? rc : launch_properties(cli);
	rc = rc ? rc : cli_principal(cli);
	rc = rc ? rc : tos_shell_sign(cli->shell, cli->principal, cli_err(cli));
	if (!output) {
		default_output(file, path);
		output = path;
	}
	rc = rc ? rc : save(cli, output);
	if (rc < 0)
		return cli_fail(cli, rc);
	if (strcmp(output, "-") == 0)
		return EXIT_DONE;
	if (cli->json) {
		struct tos_value *v = map_of("file", tos_text(output));

		print_json(v);
		tos_value_free(v);
	} else
		puts(output);
	return EXIT_DONE;
}

const struct command command_build = {
	.name = "build",
	.args = "FILE",
	.summary = "Sign a carrier's code, to be launched later or by somebody else",
	.about = "Checks the syntax of a Lua source, writes its manifest, signs it as author and puts both into a bundle, "
		 "with the modules that the source requires: those in its folder (require \"lib.names\" is lib/names.lua "
		 "there) and the system's libraries. A module in the place of one of the system's is refused; one whose name "
		 "the source computes is named by --module. Who "
		 "launches a bundle signs the launch only. With a path, data, limits or other properties of a launch the file "
		 "is a saved carrier, which holds these beside the bundle; they are its owner's, and not signed before the "
		 "launch.",
	.examples = "tos build upgrade.lua -o upgrade.bundle\tThen tos launch upgrade.bundle\n"
		    "tos build upgrade.lua --path @all --data LEVEL=3 -o upgrade.tos\tWith path and data\n",
	.run = run_build,
	.min_args = 1,
	.max_args = 1,
	.words = "files",
	.options = {
		{ "output", 'o', "FILE", "where it goes, - for standard output; default FILE without .lua, with .bundle" },
		PROPERTY_OPTIONS,
		{ "name", 0, "NAME", "what the code is called, default the file's name" },
		{ "as", 0, "PRINCIPAL", "the author; default from domain.conf" },
	},
};

/* ---- verify */

static void print_field(const struct tos_value *v, const char *key)
{
	if (!tos_get(v, key))
		return;
	printf("%-10s", key);
	print_element(tos_get(v, key), stdout);
	putchar('\n');
}

static void print_bundle(const struct tos_value *v)
{
	static const char *const keys[] = { "name", "version", "runtime", "entry", "author",
		"issued", "expires", "code" };
	const struct tos_value *files = tos_get(v, "files");
	const struct tos_value *kin = tos_get(v, "libraries");

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		print_field(v, keys[i]);
	for (size_t i = 0; i < tos_len(files); i++) {
		const char *file = tos_as_text(tos_key_at(files, i), "?");
		const char *what = tos_get_text(kin, file, "");

		printf("%-10s%s (%lld bytes%s%s)\n", "file", file,
			(long long)tos_as_int(tos_value_at(files, i), 0), *what ? ", " : "",
			what);
	}
}

/* What a saved carrier holds besides: path, data, limits. */
static void print_saved(const struct tos_value *v)
{
	const struct tos_value *folders = tos_get(v, "folders"), *limits = tos_get(v, "limits"),
			       *sealed = tos_get(v, "sealed"),
			       *append = tos_get(v, "append_only");

	printf("%-10s%s\n", "path",
		*tos_get_text(v, "path", "") ? tos_get_text(v, "path", "") : "none");
	for (size_t i = 0; i < tos_len(folders); i++)
		printf("%-10s%s (%lld element%s)\n", "folder",
			tos_as_text(tos_key_at(folders, i), "?"),
			(long long)tos_as_int(tos_value_at(folders, i), 0),
			tos_as_int(tos_value_at(folders, i), 0) == 1 ? "" : "s");
	for (size_t i = 0; i < tos_len(sealed); i++)
		printf("%-10s%s (SHA-256 %s)\n", "sealed",
			tos_as_text(tos_key_at(sealed, i), "?"),
			tos_as_text(tos_value_at(sealed, i), "?"));
	for (size_t i = 0; i < tos_len(append); i++)
		printf("%-10s%s\n", "append", tos_as_text(tos_at(append, i), "?"));
	for (size_t i = 0; i < tos_len(limits); i++) {
		char text[64];

		limit_text(tos_as_text(tos_key_at(limits, i), ""),
			tos_as_int(tos_value_at(limits, i), 0), text, sizeof(text));
		printf("%-10s%s=%s\n", "limit", tos_as_text(tos_key_at(limits, i), "?"), text);
	}
	putchar('\n');
	table_print(tos_get(v, "parts"), "part:PART bytes:BYTES sha256:SHA-256", stdout);
}

/* Both in one map; the bundle's word for its code is its digest. */
static void merge(struct tos_value *v, const struct tos_value *more)
{
	for (size_t i = 0; i < tos_len(more); i++)
		tos_set_value(v, tos_value_copy(tos_key_at(more, i)),
			tos_value_copy(tos_value_at(more, i)));
}

static int run_verify(struct cli *cli)
{
	struct tos_value *v = NULL, *what = NULL;
	const char *file =
		strcmp(cli->args.word[0], "-") == 0 ? "/dev/stdin" : cli->args.word[0];
	int rc = tos_shell_load(file, &cli->shell, cli_err(cli));
	struct slice bundle = rc ? (struct slice){ NULL, 0 } : shell_bundle(cli->shell);

	if (rc == 0 && !bundle.n)
		rc = err_set(&cli->em, ERR_SIGNATURE, "%s is not signed; 'tos build' signs",
			cli->args.word[0]);
	if (rc == 0) {
		rc = bundle_verify(bundle, cli->home, &v, &cli->em);
		if (rc < 0)
			err_wrap(&cli->em, rc, "%s", cli->args.word[0]);
	}
	if (v && shell_describe(cli->shell, &what, NULL) == 0 && cli->json)
		merge(v, what);
	if (v && cli->json) {
		tos_set(v, "valid", tos_bool(rc == 0));
		print_json(v);
	} else if (v) {
		print_bundle(v);
		print_saved(what);
	}
	tos_value_free(v);
	tos_value_free(what);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_verify = {
	.name = "verify",
	.args = "FILE",
	.summary = "Check the signatures of a bundle, and print what is in it",
	.about =
		"Checks a bundle as a kernel would when it is offered one: that its files are "
		"those which the manifest names, "
		"who signed it, that the certificate leads to this domain's root, has the role "
		"author, and is neither "
		"expired nor on the revocation list known here. Prints what it says of itself, the path, folders and limits of a "
		"saved carrier, and of its three parts (code, path, data) size and SHA-256. No kernel is needed. - reads "
		"standard input.",
	.examples = "tos verify upgrade.bundle\tWho wrote it, and is it whole\n",
	.run = run_verify,
	.min_args = 1,
	.max_args = 1,
	.words = "files",
};
