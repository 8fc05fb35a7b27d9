/* tos post, call */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"

static int elements_of(struct cli *cli, struct tos_value **out)
{
	struct tos_value *v = tos_array();

	for (size_t i = 1; i < cli->args.n_word; i++)
		if (tos_push(v, word_value(cli->args.word[i], cli_option(cli, "text"))) < 0) {
			tos_value_free(v);
			return err_set(&cli->em, ERR_USAGE,
				"'%.64s' is neither UTF-8 text nor JSON", cli->args.word[i]);
		}
	*out = v;
	return 0;
}

static const char *folder_name(const struct cli *cli)
{
	const char *f = cli_option(cli, "folder");

	return f ? f : "";
}

/* "Echo" of a kernel that is not of this machine is host9/Echo. */
static const char *destination(const struct cli *cli, char out[200])
{
	const char *word = cli->args.word[0];

	if (!cli->remote || strpbrk(word, "/#"))
		return word;
	snprintf(out, 200, "%.64s/%.129s", cli->kernel, word);
	return out;
}

/* A one-way post is answered only when it fails; wait a moment for that. */
static int await_failure(struct cli *cli)
{
	struct tos_value *e = NULL;
	char folder[129];
	int rc;

	while ((rc = tos_receive(
			cli->connection, cli_timeout(cli, 100), NULL, folder, &e, NULL)) == 0) {
		const char *word = tos_as_text(tos_at(e, 0), "");

		if (strcmp(folder, "failure") == 0) {
			rc = err_from_word(word, strlen(word));
			err_set(&cli->em, rc, "%s", tos_as_text(tos_at(e, 1), err_text(rc)));
			tos_value_free(e);
			return rc;
		}
		tos_value_free(STEAL(e));
	}
	return rc == ERR_TIMEOUT ? 0 : rc;
}

/* Carriers take orders from whom they know: say who we are if there is a key to show it. Elsewhere only
 * if --as asks for it: a principal may be allowed less than whoever the kernel lets read. */
static int introduce(struct cli *cli)
{
	const char *as = cli_option(cli, "as");
	int rc;

	if (!as && !strchr(cli->args.word[0], '#'))
		return 0;
	rc = cli_principal(cli);
	rc = rc ? rc
		: tos_introduce(cli->connection, cli->principal, cli_timeout(cli, 10000),
			  cli_err(cli));
	if (rc == 0 || as)
		return rc;
	cli->em.text[0] = '\0';
	return 0;
}

static int run_post(struct cli *cli)
{
	struct tos_value *elements = NULL;
	char dest[200];
	int rc = elements_of(cli, &elements);

	rc = rc ? rc : cli_connect(cli);
	rc = rc ? rc : introduce(cli);
	rc = rc ? rc
		: tos_send(cli->connection, destination(cli, dest), folder_name(cli), elements,
			  cli_err(cli));
	rc = rc ? rc : await_failure(cli);
	tos_value_free(elements);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

#define FOLDER                                                                                 \
	{                                                                                      \
		"folder", 'f', "NAME", "name of the folder; default none"                      \
	}
#define AS                                                                                     \
	{                                                                                      \
		"as", 0, "PRINCIPAL",                                                          \
			"whose the post is; default from domain.conf, and only for carriers"   \
	}
#define TEXT                                                                                   \
	{                                                                                      \
		"text", 0, NULL, "take each value as text, also one that is JSON"              \
	}

const struct command command_post = {
	.name = "post",
	.args = "INBOX [VALUE]...",
	.summary = "Post a folder to an inbox",
	.about = "Posts one folder holding the values to an inbox: Echo of the asked kernel, "
		 "host3/Echo of another, "
		 "host0#42/replies of a carrier wherever it is. A value that is JSON is taken "
		 "as such, anything else "
		 "as text. Returns when the kernel has it in hand; a failure that is known "
		 "within a moment is "
		 "reported. To a carrier it is signed for: the carrier learns whose it is, "
		 "and takes orders from its owner only, as a rule.",
	.examples = "tos post Echo 'Hello, World'\tHere\n"
		    "tos post host2/Echo 'Hello, World'\tThere\n",
	.run = run_post,
	.min_args = 1,
	.max_args = ARGS_ANY,
	.options = { FOLDER, TEXT, AS },
};

/* ---- call */

static void print_answer(const struct cli *cli, const char *folder, const struct tos_value *v)
{
	if (cli->json) {
		struct tos_value *o = map_of("folder", tos_text(folder));

		tos_set(o, "elements", tos_value_copy(v));
		print_json(o);
		tos_value_free(o);
		return;
	}
	for (size_t i = 0; i < tos_len(v); i++) {
		const struct tos_value *e = tos_at(v, i);

		if (tos_type(e) == TOS_ARRAY && tos_type(tos_at(e, 0)) == TOS_MAP)
			table_print(e, NULL, stdout);
		else if (tos_type(e) == TOS_MAP || tos_type(e) == TOS_ARRAY)
			print_json(e);
		else {
			print_element(e, stdout);
			putchar('\n');
		}
	}
}

static int run_call(struct cli *cli)
{
	struct tos_value *elements = NULL, *answer = NULL;
	char folder[129], dest[200];
	int rc = elements_of(cli, &elements);

	rc = rc ? rc : cli_connect(cli);
	rc = rc ? rc : introduce(cli);
	rc = rc ? rc
		: tos_ask(cli->connection, destination(cli, dest), folder_name(cli), elements,
			  cli_timeout(cli, 10000), folder, &answer, cli_err(cli));
	if (rc == 0)
		print_answer(cli, folder, answer);
	tos_value_free(elements);
	tos_value_free(answer);
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_call = {
	.name = "call",
	.args = "INBOX [VALUE]...",
	.summary = "Post a folder to an inbox and print the answer",
	.about = "As tos post, but waits for the answer, ten seconds unless --timeout says "
		 "otherwise.",
	.examples = "tos call Monitor load\tLoad of the asked kernel's host\n"
		    "tos call host2/Monitor filesystem /\tA file system of another\n"
		    "tos call Control --folder STATUS '{}'\tThe kernel itself\n",
	.run = run_call,
	.min_args = 1,
	.max_args = ARGS_ANY,
	.options = { FOLDER, TEXT, AS },
};
