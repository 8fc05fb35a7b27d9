/* Named actions: see action.h. Linked into tosd and tos-kernel. */
#include "ipc/action.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define NAMES  LOWER DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZ_.-"

#define NUMBER_DIGITS 18
#define NAME_MAX_     64
#define DIGEST_DIGITS 64

static const char *const words[] = { [ACTION_ADDRESS] = "address",
	[ACTION_ADDRESS4] = "address4",
	[ACTION_ADDRESS6] = "address6",
	[ACTION_NAME] = "name",
	[ACTION_NUMBER] = "number",
	[ACTION_PORT] = "port",
	[ACTION_DIGEST] = "digest" };
static const char *const wants[] = { [ACTION_ADDRESS] = "an IPv4 or IPv6 address",
	[ACTION_ADDRESS4] = "an IPv4 address",
	[ACTION_ADDRESS6] = "an IPv6 address",
	[ACTION_NAME] =
		"a name of at most 64 letters, digits, '.', '_', '-', not first '.' or '-'",
	[ACTION_NUMBER] = "a number of at most 18 digits",
	[ACTION_PORT] = "a port from 1 to 65535",
	[ACTION_DIGEST] = "64 lower-case hexadecimal digits" };

const char *action_kind_word(uint32_t kind)
{
	return kind >= ACTION_ADDRESS && kind < ARRAY_LEN(words) ? words[kind] : "?";
}

static bool all_of(const char *s, const char *allowed)
{
	return *s && s[strspn(s, allowed)] == 0;
}

static bool address_ok(int family, const char *given, char out[TOSD_ACTION_VALUE])
{
	struct in6_addr a;

	return inet_pton(family, given, &a) == 1 &&
	       inet_ntop(family, &a, out, TOSD_ACTION_VALUE) != NULL;
}

static bool number_ok(const char *given)
{
	return all_of(given, DIGITS) && strlen(given) <= NUMBER_DIGITS &&
	       (given[0] != '0' || !given[1]);
}

static bool value_ok(uint32_t kind, const char *given, char out[TOSD_ACTION_VALUE])
{
	int64_t port;

	switch (kind) {
	case ACTION_ADDRESS:
		return address_ok(AF_INET, given, out) || address_ok(AF_INET6, given, out);
	case ACTION_ADDRESS4:
		return address_ok(AF_INET, given, out);
	case ACTION_ADDRESS6:
		return address_ok(AF_INET6, given, out);
	case ACTION_NAME:
		return all_of(given, NAMES) && strlen(given) <= NAME_MAX_ && given[0] != '-' &&
		       given[0] != '.';
	case ACTION_NUMBER:
		return number_ok(given);
	case ACTION_PORT:
		return number_ok(given) && text_int(given, 1, 65535, &port) == 0;
	case ACTION_DIGEST:
		return all_of(given, DIGITS "abcdef") && strlen(given) == DIGEST_DIGITS;
	default:
		return false;
	}
}

int action_value(
	uint32_t kind, const char *given, char out[TOSD_ACTION_VALUE], struct errmsg *em)
{
	size_t n = strlen(given);

	if (n < TOSD_ACTION_VALUE)
		memcpy(out, given, n + 1);
	if (n < TOSD_ACTION_VALUE && value_ok(kind, given, out))
		return 0;
	return err_set(em, ERR_USAGE, "it is not %s",
		kind >= ACTION_ADDRESS && kind < ARRAY_LEN(wants) ? wants[kind]
								  : "of any kind");
}

/* ---- a row of the table */

static int arg_find(const struct tosd_action *a, const char *name, size_t n)
{
	for (uint32_t i = 0; i < a->n_args; i++)
		if (strlen(a->arg[i].name) == n && memcmp(a->arg[i].name, name, n) == 0)
			return (int)i;
	return -1;
}

/* The argument that `{NAME}` at s stands for; *n is its length. -1: none of that name, -2: no
 * placeholder, a brace like any other. */
static int placeholder(const struct tosd_action *a, const char *s, size_t *n)
{
	size_t len = s[0] == '{' ? strspn(s + 1, LOWER DIGITS "_") : 0;

	if (!len || s[1 + len] != '}')
		return -2;
	*n = len + 2;
	return arg_find(a, s + 1, len);
}

int action_arg_add(struct tosd_action *a, const char *text, struct errmsg *em)
{
	const char *colon = strchr(text, ':'), *kind = colon ? colon + 1 : text;
	size_t n = colon ? (size_t)(colon - text) : strlen(text);
	uint32_t k = ACTION_ADDRESS;

	while (k < ARRAY_LEN(words) && strcmp(words[k], kind) != 0)
		k++;
	if (k == ARRAY_LEN(words) || !n || n >= sizeof(a->arg[0].name) ||
		strspn(text, LOWER DIGITS "_") < n)
		return err_set(em, ERR_CONFIG,
			"'%.64s' is not NAME:KIND; a kind is address, address4, address6, name, "
			"number, port or digest, a name lower-case letters",
			text);
	if (arg_find(a, text, n) >= 0)
		return err_set(em, ERR_CONFIG, "two arguments are called %.*s", (int)n, text);
	if (a->n_args == TOSD_ACTION_ARGS)
		return err_set(em, ERR_CONFIG, "more than %d arguments", TOSD_ACTION_ARGS);
	memcpy(a->arg[a->n_args].name, text, n);
	a->arg[a->n_args++].kind = k;
	return 0;
}

int action_word_add(struct tosd_action *a, const char *word, struct errmsg *em)
{
	size_t n = strlen(word) + 1;

	if (a->n_words == TOSD_ACTION_WORDS || n > sizeof(a->text) - a->n_text)
		return err_set(em, ERR_CONFIG, "run is more than %d words or %d bytes",
			TOSD_ACTION_WORDS, TOSD_ACTION_TEXT);
	memcpy(a->text + a->n_text, word, n);
	a->n_text += (uint32_t)n;
	a->n_words++;
	return 0;
}

/* One spelling of each path: what is shown is what is run. */
static bool path_plain(const char *path)
{
	size_t n = strlen(path);

	return path[0] == '/' && n > 1 && path[n - 1] != '/' && !strstr(path, "//") &&
	       !strstr(path, "/./") && !strstr(path, "/../") && !strchr(path, '{');
}

static int words_check(const struct tosd_action *a, struct errmsg *em)
{
	bool used[TOSD_ACTION_ARGS] = { false };
	const char *end = a->text + a->n_text;
	size_t n;

	for (const char *s = a->text; s < end; s++) {
		int arg = placeholder(a, s, &n);

		if (arg == -1)
			return err_set(em, ERR_CONFIG,
				"run has %.*s, and there is no such argument", (int)n, s);
		if (arg >= 0)
			used[arg] = true;
	}
	for (uint32_t i = 0; i < a->n_args; i++)
		if (!used[i])
			return err_set(em, ERR_CONFIG, "run does not use the argument {%s}",
				a->arg[i].name);
	return 0;
}

static bool well_formed(const struct tosd_action *a)
{
	uint32_t ends = 0;

	if (!memchr(a->name, 0, sizeof(a->name)) || a->n_args > TOSD_ACTION_ARGS ||
		a->n_words > TOSD_ACTION_WORDS || a->n_text > sizeof(a->text) ||
		(a->n_text && a->text[a->n_text - 1] != 0))
		return false;
	for (uint32_t i = 0; i < a->n_text; i++)
		ends += a->text[i] == 0;
	for (uint32_t i = 0; i < a->n_args; i++)
		if (!memchr(a->arg[i].name, 0, sizeof(a->arg[i].name)) || !a->arg[i].name[0])
			return false;
	return ends == a->n_words;
}

int action_check(const struct tosd_action *a, struct errmsg *em)
{
	if (!well_formed(a))
		return err_set(em, ERR_CONFIG, "it is malformed");
	if (!all_of(a->name, LOWER DIGITS "_.-") || a->name[0] == '-' || a->name[0] == '.')
		return err_set(em, ERR_CONFIG,
			"an action's name is lower-case letters, digits, '.', '_' and '-'");
	if (!a->n_words || !path_plain(a->text))
		return err_set(em, ERR_CONFIG,
			"run begins with the program's absolute path, without . and ..");
	if (a->timeout_ms < TOSD_ACTION_MS_MIN || a->timeout_ms > TOSD_ACTION_MS_MAX)
		return err_set(em, ERR_CONFIG, "its timeout is out of range");
	return words_check(a, em);
}

const struct tosd_action *action_find(
	const struct tosd_action *table, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

/* ---- what is asked */

static int values_check(const struct tosd_action *a, uint32_t n,
	const char values[][TOSD_ACTION_VALUE], char out[][TOSD_ACTION_VALUE],
	struct errmsg *em)
{
	if (n != a->n_args)
		return err_set(
			em, ERR_USAGE, "action %s takes %u arguments", a->name, a->n_args);
	for (uint32_t i = 0; i < n; i++) {
		int rc = memchr(values[i], 0, TOSD_ACTION_VALUE)
				 ? action_value(a->arg[i].kind, values[i], out[i], em)
				 : err_set(em, ERR_USAGE, "it has no end");

		if (rc < 0)
			return err_wrap(
				em, rc, "argument %s of action %s", a->arg[i].name, a->name);
	}
	return 0;
}

int action_expand(const struct tosd_action *a, uint32_t n_values,
	const char values[][TOSD_ACTION_VALUE], char *out, size_t cap, uint32_t *n,
	struct errmsg *em)
{
	char value[TOSD_ACTION_ARGS][TOSD_ACTION_VALUE];
	const char *end = a->text + a->n_text;
	size_t at = 0;
	int rc = values_check(a, n_values, values, value, em);

	if (rc < 0)
		return rc;
	for (const char *s = a->text; s < end;) {
		size_t len = 1, part = 1;
		int arg = placeholder(a, s, &len);
		const char *from = s;

		if (arg >= 0) {
			from = value[arg];
			part = strlen(from);
		} else {
			len = 1;
		}
		if (part > cap - at)
			return err_set(em, ERR_TOO_LARGE,
				"action %s: its arguments are too long", a->name);
		memcpy(out + at, from, part);
		at += part;
		s += len;
	}
	*n = a->n_words;
	return 0;
}
