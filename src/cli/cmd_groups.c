/* tos groups */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "lib/groups.h"
#include "lib/internal.h"

int registrar_name(struct cli *cli, char out[64]);

struct known {
	struct groups groups;
	struct names kernels;
};

/* Without a running kernel, what domain.conf says is still to be had. */
static int known_find(struct cli *cli, struct known *k)
{
	int rc = cli_connect(cli);

	if (rc == 0) {
		rc = groups_find(cli->connection, &k->groups, &cli->em);
		return rc ? rc : connection_kernels(cli->connection, &k->kernels, &cli->em);
	}
	if (rc == ERR_UNREACHABLE && groups_read(cli->home, &k->groups, NULL) == 0 &&
		*k->groups.source)
		return 0;
	return rc;
}

static void known_done(struct known *k)
{
	groups_fini(&k->groups);
	names_fini(&k->kernels);
}

static struct tos_value *names_value(const struct names *n)
{
	struct tos_value *list = tos_array();

	for (size_t i = 0; i < n->n; i++)
		tos_push(list, tos_text(n->v[i]));
	return list;
}

/* {group, hosts, from}; hosts empty where nobody is in it. */
static void add_row(struct tos_value *rows, const struct known *k, const char *selector)
{
	struct tos_value *row = map_of("group", tos_text(selector));
	struct names members = { NULL, 0 };

	(void)groups_select(&k->groups, selector, &k->kernels, &members, NULL);
	tos_set(row, "hosts", names_value(&members));
	tos_set(row, "from",
		tos_text(strcmp(selector, "@all") == 0 ? "Directory" : k->groups.source));
	tos_push(rows, row);
	names_fini(&members);
}

static int groups_list(struct cli *cli, const struct known *k)
{
	struct tos_value *rows = tos_array();
	struct names all = { NULL, 0 };
	int rc = groups_selectors(&k->groups, &all);

	for (size_t i = 0; rc == 0 && i < all.n; i++)
		if (cli_option(cli, "names"))
			puts(all.v[i]);
		else
			add_row(rows, k, all.v[i]);
	for (size_t i = 0; !cli->json && i < tos_len(rows); i++) {
		struct tos_value *row = tos_at_mut(rows, i);
		const struct tos_value *hosts = tos_get(row, "hosts");
		AUTOBUF text = BUF_INIT;

		for (size_t h = 0; h < tos_len(hosts); h++)
			buf_printf(
				&text, "%s%s", h ? "," : "", tos_as_text(tos_at(hosts, h), ""));
		tos_set(row, "number", tos_int((int64_t)tos_len(hosts)));
		tos_set(row, "hosts", tos_text(text.len ? buf_cstr(&text) : "-"));
	}
	if (cli_option(cli, "names"))
		;
	else if (cli->json)
		print_json(rows);
	else
		table_print(rows, "group:GROUP number:NUMBER hosts:HOSTS from:FROM", stdout);
	tos_value_free(rows);
	names_fini(&all);
	return rc;
}

static int groups_members(struct cli *cli, const struct known *k, const char *word)
{
	struct names members = { NULL, 0 };
	struct tos_value *list;
	char selector[160];
	int rc;

	snprintf(selector, sizeof(selector), "%s%.150s", *word == '@' ? "" : "@", word);
	if (!groups_selector_ok(selector + 1))
		return err_set(&cli->em, ERR_NAME,
			"'%.64s' is no group; they are written @all, @web, @os=debian", word);
	rc = groups_select(&k->groups, selector, &k->kernels, &members, &cli->em);
	if (rc == 0 && cli->json) {
		list = names_value(&members);
		print_json(list);
		tos_value_free(list);
	}
	for (size_t i = 0; rc == 0 && !cli->json && i < members.n; i++)
		puts(members.v[i]);
	names_fini(&members);
	return rc;
}

static int groups_publish(struct cli *cli)
{
	struct groups groups = { .value = NULL };
	struct tos_value *answer = NULL;
	char registrar[64];
	int rc = groups_read(cli->home, &groups, &cli->em);

	rc = rc ? rc : cli_connect(cli);
	rc = rc ? rc : registrar_name(cli, registrar);
	rc = rc ? rc
		: cli_act(cli, registrar, "groups", "groups", tos_value_copy(groups.value),
			  &answer);
	if (rc == 0 && cli->json)
		print_json(answer);
	else if (rc == 0)
		printf("%lld groups and labels of %lld hosts are published at %s\n",
			(long long)tos_get_int(answer, "groups", 0),
			(long long)tos_get_int(answer, "hosts", 0), registrar);
	tos_value_free(answer);
	groups_fini(&groups);
	return rc;
}

static int run_groups(struct cli *cli)
{
	const char *word = cli->args.n_word ? cli->args.word[0] : NULL;
	struct known k = { .kernels = { NULL, 0 } };
	int rc;

	if (word && strcmp(word, "publish") == 0)
		rc = groups_publish(cli);
	else {
		rc = known_find(cli, &k);
		if (rc == 0)
			rc = word ? groups_members(cli, &k, word) : groups_list(cli, &k);
		known_done(&k);
	}
	return rc < 0 ? cli_fail(cli, rc) : EXIT_DONE;
}

const struct command command_groups = {
	.name = "groups",
	.args = "[GROUP | publish]",
	.summary = "List groups of hosts and labels, or the hosts of one",
	.about = "In a path @NAME stands for the hosts of a group, @LABEL=VALUE for those that have this label, @all for every "
		 "kernel. Each of them is visited once; the group is expanded at launch, into the signed ticket.\n\n"
		 "Groups and labels stand in domain.conf of this TOS_HOME, as group \"web\" { hosts = {\"host1\", \"@edge\"} } and "
		 "host \"host1\" { labels = {\"os=debian\", \"rack=3\"} }. Where there are none, those are taken that were published "
		 "at the registrar. Publish, a signed act, gives it those of this TOS_HOME, in the place of what it had; other kernels "
		 "ask it, and keep its answer for when it can't be reached. A group may hold others, eight deep.\n\n"
		 "Without an argument all are listed; with one, its hosts.",
	.examples = "tos groups @web\tWho is in it\n"
		    "tos launch facts --path @web --wait\tGo there\n"
		    "tos groups publish\tAfter domain.conf was changed: for the other hosts\n",
	.run = run_groups,
	.max_args = 1,
	.words = "publish",
	.options = {
		{ "names", 0, NULL, "print nothing but the names, as a path takes them" },
		{ "as", 0, "PRINCIPAL", "who signs the act; default from domain.conf" },
	},
};
