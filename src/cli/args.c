/* Arguments: GNU style, options anywhere, -- ends them. */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "cli/cli.h"

const struct option_spec global_options[] = {
	{ "home", 0, "DIR",
		"where the domain is; default $TOS_HOME, else ~/.tos, for root /var/lib/tos" },
	{ "kernel", 'k', "NAME",
		"ask this kernel, here or elsewhere, instead of the first that answers" },
	{ "timeout", 't', "TIME", "give up after that long, such as 500ms, 10s, 5m" },
	{ "json", 'j', NULL, "print JSON" },
	{ "help", 'h', NULL, "print help and exit" },
	{ "version", 'V', NULL, "print the version and exit" },
	{ NULL, 0, NULL, NULL },
};

static const struct option_spec *find_long(
	const struct option_spec *o, const char *name, size_t n)
{
	for (; o && o->name; o++)
		if (strlen(o->name) == n && memcmp(o->name, name, n) == 0)
			return o;
	return NULL;
}

static const struct option_spec *find_short(const struct option_spec *o, char letter)
{
	for (; o && o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

static const char *program(const struct args *a, char out[64])
{
	snprintf(out, 64, "tos%s%s", a->command ? " " : "", a->command ? a->command->name : "");
	return out;
}

static int keep(
	struct args *a, const struct option_spec *spec, const char *value, struct errmsg *em)
{
	if (a->n_option == ARGS_MAX)
		return err_set(em, ERR_USAGE, "more than %d options", ARGS_MAX);
	a->option[a->n_option].spec = spec;
	a->option[a->n_option++].value = value;
	return 0;
}

/* The nearest name so far, and how near that is. */
struct meant {
	const char *name;
	unsigned off;
};

static void meant_try(struct meant *m, const char *word, size_t n, const char *name)
{
	char typed[33];
	unsigned off;

	if (n < 2 || n >= sizeof(typed))
		return;
	memcpy(typed, word, n);
	typed[n] = 0;
	off = strncmp(name, typed, n) == 0 ? 1 : text_distance(typed, name, 2);
	if (off * 2 >= n && *typed != *name)
		return; /* as short as that, half of it wrong: another word */
	if (off < m->off && off < strlen(name)) {
		m->name = name;
		m->off = off;
	}
}

static int unknown(const struct args *a, const char *word, struct errmsg *em)
{
	const struct option_spec *const tables[] = { a->command ? a->command->options : NULL,
		global_options };
	struct meant m = { NULL, 3 };
	char p[64];

	for (size_t i = 0; word[1] == '-' && i < 2; i++)
		for (const struct option_spec *o = tables[i]; o && o->name; o++)
			meant_try(&m, word + 2, strcspn(word + 2, "="), o->name);
	/* What launch calls --path is --hosts PATH to run. */
	for (const struct option_spec *o = tables[0]; o && o->name && !m.name; o++)
		if (strcmp(word, "--path") == 0 && o->value && strcmp(o->value, "PATH") == 0)
			m.name = o->name;
	if (!m.name && a->command && a->command->runs_words && a->n_word)
		return err_set(em, ERR_USAGE,
			"there is no option %s; a command with its own stands behind --: "
			"tos %s -- %s %s",
			word, a->command->name, a->word[0], word);
	return err_set(em, ERR_USAGE, "there is no option %s%s%s%s; '%s --help' lists them",
		word, m.name ? "; is it --" : "", m.name ? m.name : "", m.name ? "?" : "",
		program(a, p));
}

/* arg: behind the dashes. *used: the next argument was taken as its value. */
static int long_option(
	struct args *a, const char *arg, const char *next, bool *used, struct errmsg *em)
{
	size_t n = strcspn(arg + 2, "=");
	const struct option_spec *o = find_long(global_options, arg + 2, n);
	const char *value = arg[2 + n] ? arg + 3 + n : NULL;

	if (!o && a->command)
		o = find_long(a->command->options, arg + 2, n);
	if (!o)
		return unknown(a, arg, em);
	if (!o->value)
		return value ? err_set(em, ERR_USAGE, "--%s takes no value", o->name)
			     : keep(a, o, "", em);
	if (!value) {
		if (!next || strcmp(next, "--") == 0)
			return err_set(em, ERR_USAGE, "--%s needs a value: --%s %s", o->name,
				o->name, o->value);
		value = next;
		*used = true;
	}
	return keep(a, o, value, em);
}

static int short_options(
	struct args *a, const char *arg, const char *next, bool *used, struct errmsg *em)
{
	for (const char *p = arg + 1; *p; p++) {
		const struct option_spec *o =
			a->command ? find_short(a->command->options, *p) : NULL;
		int rc;

		if (!o)
			o = find_short(global_options, *p);
		if (!o)
			return unknown(a, arg, em);
		if (!o->value) {
			rc = keep(a, o, "", em);
			if (rc < 0)
				return rc;
			continue;
		}
		if (p[1])
			return keep(a, o, p + 1, em);
		if (!next || strcmp(next, "--") == 0)
			return err_set(
				em, ERR_USAGE, "-%c needs a value: -%c %s", *p, *p, o->value);
		*used = true;
		return keep(a, o, next, em);
	}
	return 0;
}

static int name_command(
	struct args *a, const char *word, const struct command *const *table, struct errmsg *em)
{
	struct meant m = { NULL, 3 };

	for (; *table; table++) {
		if (strcmp((*table)->name, word) == 0) {
			a->command = *table;
			return 0;
		}
		if (!(*table)->hidden)
			meant_try(&m, word, strlen(word), (*table)->name);
	}
	return err_set(em, ERR_USAGE, "there is no command %s%s%s%s; 'tos --help' lists them",
		word, m.name ? "; is it " : "", m.name ? m.name : "", m.name ? "?" : "");
}

static int check_count(const struct args *a, struct errmsg *em)
{
	const struct command *c = a->command;

	if (!c || args_value(a, "help") || args_value(a, "version"))
		return 0;
	if (a->n_word >= c->min_args && a->n_word <= c->max_args)
		return 0;
	return err_set(em, ERR_USAGE, "%s arguments: tos %s%s%s; 'tos %s --help' explains",
		a->n_word < c->min_args ? "too few" : "too many", c->name, *c->args ? " " : "",
		c->args, c->name);
}

int args_parse(int argc, char *const *argv, const struct command *const *table,
	struct args *out, struct errmsg *em)
{
	bool options = true;
	int rc = 0;

	memset(out, 0, sizeof(*out));
	for (int i = 1; i < argc && rc == 0; i++) {
		const char *arg = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
		bool used = false;

		if (options && strcmp(arg, "--") == 0) {
			options = false;
			out->dashes = true;
			out->n_before = out->n_word;
		} else if (options && arg[0] == '-' && arg[1] == '-')
			rc = long_option(out, arg, next, &used, em);
		else if (options && arg[0] == '-' && arg[1])
			rc = short_options(out, arg, next, &used, em);
		else if (!out->command)
			rc = name_command(out, arg, table, em);
		else if (out->n_word == ARGS_MAX)
			rc = err_set(em, ERR_USAGE, "more than %d arguments", ARGS_MAX);
		else
			out->word[out->n_word++] = arg;
		i += used;
	}
	return rc ? rc : check_count(out, em);
}

const char *args_value(const struct args *a, const char *name)
{
	for (size_t i = a->n_option; i-- > 0;)
		if (strcmp(a->option[i].spec->name, name) == 0)
			return a->option[i].value;
	return NULL;
}

const char *args_next(const struct args *a, const char *name, size_t *it)
{
	while (*it < a->n_option) {
		size_t i = (*it)++;

		if (strcmp(a->option[i].spec->name, name) == 0)
			return a->option[i].value;
	}
	return NULL;
}
