/* What commands share: connections, questions, signed acts, failures and exit codes. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

const char *cli_option(const struct cli *cli, const char *name)
{
	return args_value(&cli->args, name);
}

uint32_t cli_timeout(const struct cli *cli, uint32_t def_ms)
{
	return cli->timeout_ms ? cli->timeout_ms : def_ms;
}

struct tos_error *cli_err(struct cli *cli)
{
	return (struct tos_error *)&cli->em;
}

int cli_exit(int rc)
{
	switch (rc) {
	case 0:
		return EXIT_DONE;
	case ERR_USAGE:
		return EXIT_USAGE;
	case ERR_DENIED:
	case ERR_SIGNATURE:
	case ERR_UNTRUSTED:
	case ERR_REVOKED:
		return EXIT_DENIED;
	case ERR_TIMEOUT:
		return EXIT_TIMEOUT;
	case ERR_UNREACHABLE:
	case ERR_CLOSED:
		return EXIT_UNREACHABLE;
	default:
		return EXIT_FAILED;
	}
}

int cli_fail(const struct cli *cli, int rc)
{
	const struct command *c = cli->args.command;
	AUTOBUF text = BUF_INIT;

	fflush(stdout);
	fprintf(stderr, "tos%s%s: %s\n", c ? " " : "", c ? c->name : "",
		text_shown(&text, err_show(rc, &cli->em)));
	return cli_exit(rc);
}

int cli_usage(struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cli->em.text, sizeof(cli->em.text), fmt, ap);
	va_end(ap);
	return cli_fail(cli, ERR_USAGE);
}

int cli_connect(struct cli *cli)
{
	int rc;

	if (cli->connection)
		return 0;
	rc = tos_connect(cli->home, cli->kernel, cli_timeout(cli, 10000), &cli->connection,
		cli_err(cli));
	if (rc != ERR_NOT_FOUND || !cli->kernel)
		return rc;
	if (tos_connect(cli->home, NULL, cli_timeout(cli, 10000), &cli->connection, NULL) < 0)
		return rc;
	cli->remote = true;
	return 0;
}

const char *cli_kernel(const struct cli *cli)
{
	return cli->remote ? cli->kernel : tos_connection_kernel(cli->connection);
}

void cli_disconnect(struct cli *cli)
{
	tos_disconnect(cli->connection);
	cli->connection = NULL;
}

int cli_connect_to(struct cli *cli, const char *kernel)
{
	struct tos_connection *c;

	if (cli->kernel) /* the user chose whom to ask */
		return cli_connect(cli);
	if (cli->connection && strcmp(tos_connection_kernel(cli->connection), kernel) == 0)
		return 0;
	if (tos_connect(cli->home, kernel, cli_timeout(cli, 10000), &c, NULL) < 0)
		return cli_connect(cli);
	cli_disconnect(cli);
	cli->connection = c;
	return 0;
}

int cli_principal(struct cli *cli)
{
	if (cli->principal)
		return 0;
	return tos_principal_load(
		cli->home, cli_option(cli, "as"), &cli->principal, cli_err(cli));
}

struct tos_value *map_of(const char *key, struct tos_value *v)
{
	struct tos_value *m = tos_map();

	if (tos_set(m, key, v) == 0)
		return m;
	tos_value_free(m);
	return NULL;
}

int cli_ask(struct cli *cli, const char *kernel, const char *verb, struct tos_value *args,
	struct tos_value **out)
{
	struct tos_value *elements = tos_array(), *answer = NULL;
	char dest[129] = "Control";
	int rc = cli_connect(cli);

	kernel = cli->remote && !kernel ? cli->kernel : kernel;
	if (rc == 0 && kernel && strcmp(kernel, tos_connection_kernel(cli->connection)) != 0)
		snprintf(dest, sizeof(dest), "%.64s/Control", kernel);
	if (rc < 0)
		tos_value_free(args);
	else
		rc = tos_push(elements, args ? args : tos_map());
	if (rc == 0)
		rc = tos_ask(cli->connection, dest, verb, elements, cli_timeout(cli, 10000),
			NULL, &answer, cli_err(cli));
	if (rc == 0 && out)
		*out = tos_take_at(answer, 0);
	if (rc == 0 && out && !*out)
		rc = err_set(&cli->em, ERR_MALFORMED, "the answer to %s is empty", verb);
	tos_value_free(elements);
	tos_value_free(answer);
	return rc;
}

int cli_act(struct cli *cli, const char *kernel, const char *act, const char *target,
	struct tos_value *args, struct tos_value **out)
{
	struct tos_value *answer = NULL;
	int rc = cli_principal(cli);

	rc = rc ? rc : cli_connect(cli);
	kernel = cli->remote && !kernel ? cli->kernel : kernel;
	rc = rc ? rc
		: tos_act(cli->connection, cli->principal, kernel, act, target, args,
			  cli_timeout(cli, 10000), &answer, cli_err(cli));
	tos_value_free(args);
	if (rc == 0 && out)
		*out = tos_take_at(answer, 0);
	tos_value_free(answer);
	return rc;
}

void cli_home_of(const char *carrier, char kernel[64])
{
	size_t n = strcspn(carrier, "#");

	snprintf(kernel, 64, "%.*s", (int)(n > 63 ? 63 : n), carrier);
}

/* Which kernel of this TOS_HOME knows HOME#word? */
static int find_short(struct cli *cli, const char *word, char name[129])
{
	struct names all = { NULL, 0 };
	struct home h;
	size_t found = 0;
	int rc = home_open(cli->home, &h, &cli->em);

	rc = rc ? rc : home_kernels(&h, &all);
	for (size_t i = 0; rc == 0 && i < all.n; i++) {
		struct tos_value *where = NULL;
		char full[129];

		if (cli->kernel && strcmp(cli->kernel, all.v[i]) != 0)
			continue;
		snprintf(full, sizeof(full), "%s#%.60s", all.v[i], word);
		if (cli_connect_to(cli, all.v[i]) < 0 ||
			strcmp(tos_connection_kernel(cli->connection), all.v[i]) != 0)
			continue;
		if (cli_ask(cli, NULL, "LOCATE", map_of("name", tos_text(full)), &where) == 0 &&
			++found)
			memcpy(name, full, sizeof(full));
		tos_value_free(where);
	}
	names_fini(&all);
	if (rc == 0 && found != 1) {
		rc = cli_connect(cli);
		rc = rc ? rc
			: err_set(&cli->em, found ? ERR_NAME : ERR_NOT_FOUND,
				  found ? "%s is the number of carriers of more than one "
					  "kernel; name it "
					  "whole, like host0#%s"
					: "no carrier has the number %s here; 'tos ps' lists "
					  "them, one of "
					  "another home is named whole, like host0#%s",
				  word, word);
	}
	return rc;
}

static bool like_kernel(const char *word)
{
	return *word && word[strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789.-")] == 0;
}

int cli_carrier(struct cli *cli, const char *word, char name[129])
{
	char kernel[64];
	int rc = 0;

	if (!*word || strlen(word) > 128 || strspn(word, "0123456789.") != strlen(word)) {
		if (!strchr(word, '#') || *word == '#' || strlen(word) > 128)
			return err_set(&cli->em, ERR_NAME,
				"'%.64s' is no carrier's name; they look like host0#42%s", word,
				like_kernel(word) ? "; a kernel is asked with -k NAME" : "");
		snprintf(name, 129, "%s", word);
	} else
		rc = find_short(cli, word, name);
	if (rc < 0)
		return rc;
	cli_home_of(name, kernel);
	return cli_connect_to(cli, kernel);
}

void print_json(const struct tos_value *v)
{
	char *json = tos_to_json(v, 2);

	puts(json ? json : "null");
	free(json);
}

void print_element(const struct tos_value *v, FILE *out)
{
	AUTOBUF b = BUF_INIT;

	put_text(&b, v);
	fwrite(b.data, 1, b.len, out);
}
