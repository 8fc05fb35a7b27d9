/* Single values of the configuration, held against the table of keys. */
#include "kernel/config_table.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/text.h"
#include "core/firewall.h"
#include "core/name.h"
#include "core/place.h"
#include "sandbox/sandbox.h"
#include "seal/seal.h"

/* The port behind the last ':'; *n_host is what stands before it. */
static int port_check(const char *s, size_t *n_host, struct errmsg *em)
{
	const char *colon = strrchr(s, ':');
	int64_t port;

	if (!colon || colon == s)
		return err_set(em, ERR_CONFIG, "'%s' is not host:port", s);
	if (colon[1] < '1' || colon[1] > '9' || text_int(colon + 1, 1, 65535, &port) < 0)
		return err_set(em, ERR_CONFIG, "'%s': a port is a number from 1 to 65535", s);
	*n_host = (size_t)(colon - s);
	return 0;
}

static bool is_numeric(const char *s, size_t n)
{
	char host[INET6_ADDRSTRLEN + 1];
	struct in6_addr addr;

	if (n > 2 && s[0] == '[' && s[n - 1] == ']')
		return text_copy(host, sizeof(host), s + 1, n - 2) == 0 &&
		       inet_pton(AF_INET6, host, &addr) == 1;
	return text_copy(host, sizeof(host), s, n) == 0 && inet_pton(AF_INET, host, &addr) == 1;
}

bool config_host_ok(const char *s, size_t n)
{
	if (s[0] == '-' || s[0] == '.')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
			!(s[i] >= '0' && s[i] <= '9') && s[i] != '.' && s[i] != '-' &&
			s[i] != '_')
			return false;
	return true;
}

static int address_check(const char *s, bool numeric, struct errmsg *em)
{
	size_t n_host = 0;
	int rc = port_check(s, &n_host, em);

	if (rc < 0 || is_numeric(s, n_host))
		return rc;
	if (numeric)
		return err_set(em, ERR_CONFIG,
			"'%s': listening needs a numeric address, 127.0.0.1:21212 or "
			"[::1]:21212",
			s);
	return config_host_ok(s, n_host) ? 0 : err_set(em, ERR_CONFIG, "'%s' names no host", s);
}

static int one_of(const char *s, const char *const *words, struct errmsg *em)
{
	AUTOBUF all = BUF_INIT;

	for (; *words; words++) {
		if (strcmp(s, *words) == 0)
			return 0;
		buf_printf(&all, "%s%s", all.len ? ", " : "", *words);
	}
	return err_set(em, ERR_CONFIG, "'%s' is none of %s", s, buf_cstr(&all));
}

static bool words_ok(const char *s, bool one)
{
	if (one && !*s)
		return false;
	for (; *s; s++)
		if (!(*s >= 'a' && *s <= 'z') && !(*s >= '0' && *s <= '9') && *s != '-' &&
			*s != '_' && (one || *s != ' '))
			return false;
	return true;
}

static int rule_check(const char *s, struct errmsg *em)
{
	struct firewall *f = firewall_new();
	struct errmsg why = { "" };
	int rc = firewall_add(f, s, &why);

	firewall_free(f);
	return rc < 0 ? err_set(em, ERR_CONFIG, "%s", why.text) : 0;
}

static int roles_check(const char *s, struct errmsg *em)
{
	char word[16];

	while (*s) {
		size_t n = strcspn(s, " ");

		if (n && (text_copy(word, sizeof(word), s, n) < 0 || !role_parse(word)))
			return err_set(em, ERR_CONFIG,
				"'%s': the roles are admin, owner, author and officer", s);
		s += n;
		s += strspn(s, " ");
	}
	return 0;
}

/* /usr/bin/df=SHA-256 in hex */
static int pin_check(const char *s, struct errmsg *em)
{
	const char *equals = strrchr(s, '=');
	uint8_t digest[DIGEST_BYTES];

	if (s[0] == '/' && equals && strlen(equals + 1) == 2 * sizeof(digest) &&
		text_unhex(equals + 1, 2 * sizeof(digest), digest, sizeof(digest)) == 0 &&
		strspn(equals + 1, "0123456789abcdef") == 2 * sizeof(digest))
		return 0;
	return err_set(em, ERR_CONFIG,
		"'%s' is not PATH=SHA-256, the latter as sha256sum prints it", s);
}

static int place_check(const char *s, struct errmsg *em)
{
	struct errmsg why = { "" };
	struct place p;

	return place_parse(s, &p, &why) < 0 ? err_set(em, ERR_CONFIG, "%s", why.text) : 0;
}

/* Nothing of the host's own, and no way around by "..". */
static int directory_check(const char *s, struct errmsg *em)
{
	static const char *const no[] = { "/", "/proc", "/sys", "/dev", "/etc", "/root", "/run",
		"/boot" };
	size_t n = strcspn(s, " ");
	bool flag = strcmp(s + n, " read-only") == 0;
	char path[TOSD_DIRECTORY_BYTES];

	if (s[0] != '/' || (s[n] && !flag) || text_copy(path, sizeof(path), s, n) < 0)
		return err_set(em, ERR_CONFIG,
			"'%s' is not an absolute path, or one with \" read-only\" behind it",
			s);
	for (const char *at = path; (at = strstr(at, "/..")); at += 3)
		if (!at[3] || at[3] == '/')
			return err_set(em, ERR_CONFIG, "'%s': write the path without ..", s);
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		if (strcmp(path, no[i]) == 0)
			return err_set(em, ERR_CONFIG,
				"'%s' is the host's, and no extension's: name a directory that was "
				"made for it",
				path);
	return 0;
}

static int text_check(const struct key *k, const char *s, struct errmsg *em)
{
	static const char *const levels[] = { "debug", "info", "notice", "warning", "error",
		NULL };
	static const char *const wheres[] = { "kernel", "isolated", NULL };

	switch (k->kind) {
	case KEY_KERNEL0:
		if (!*s)
			return 0;
		/* fall through */
	case KEY_KERNEL:
		return name_kernel_ok(s)
			       ? 0
			       : err_set(em, ERR_CONFIG,
					 "'%s' is no kernel's name (lower case, digits, "
					 ". and -; not client or tos)",
					 s);
	case KEY_ADDRESS0:
		return *s ? address_check(s, false, em) : 0;
	case KEY_ADDRESS:
	case KEY_LISTEN:
		return address_check(s, k->kind == KEY_LISTEN, em);
	case KEY_LEVEL:
		return one_of(s, levels, em);
	case KEY_WHERE:
		return one_of(s, wheres, em);
	case KEY_LAYER:
		return one_of(s, sandbox_layer_names, em);
	case KEY_WORD:
	case KEY_WORDS:
		return words_ok(s, k->kind == KEY_WORD)
			       ? 0
			       : err_set(em, ERR_CONFIG, "'%s' is not made of lower-case words",
					 s);
	case KEY_LIBRARY:
		return s[0] == '/' || words_ok(s, true)
			       ? 0
			       : err_set(em, ERR_CONFIG,
					 "'%s': a library is an absolute path or a shipped "
					 "one's name",
					 s);
	case KEY_PLACE:
		return place_check(s, em);
	case KEY_DIRECTORY:
		return directory_check(s, em);
	case KEY_PATH:
		return s[0] == '/' ? 0 : err_set(em, ERR_CONFIG, "'%s' is no absolute path", s);
	case KEY_ROLES:
		return roles_check(s, em);
	case KEY_PROPERTY:
		return s[0] == '/' && strchr(s, '=')
			       ? 0
			       : err_set(em, ERR_CONFIG, "'%s' is not /path=value", s);
	case KEY_INBOX:
		return name_inbox_ok(s)
			       ? 0
			       : err_set(em, ERR_CONFIG,
					 "'%s': an extension's name begins with a capital letter, "
					 "then letters, digits, - and .",
					 s);
	case KEY_PIN:
		return pin_check(s, em);
	case KEY_TEXT:
		return 0;
	case KEY_RULE:
		return rule_check(s, em);
	default:
		return err_set(em, ERR_STATE, "not a text");
	}
}

bool config_is_text(enum key_kind kind)
{
	return kind <= KEY_RULE;
}

static int bool_parse(const char *s, int64_t *out)
{
	static const char *const words[] = { "false", "no", "off", "true", "yes", "on" };

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcmp(s, words[i]) != 0)
			continue;
		*out = i >= 3;
		return 0;
	}
	return ERR_MALFORMED;
}

/* A plain decimal number: 010 would be 8 elsewhere, so it is nothing here. */
static int plain_parse(const char *s, int64_t *out)
{
	return s[0] == '0' && s[1] ? ERR_MALFORMED : text_int(s, 0, INT64_MAX, out);
}

static int number_parse(const struct key *k, const char *s, int64_t *out, struct errmsg *em)
{
	char text[160];
	enum limit_id id;
	uint64_t bytes = 0;
	const char *what = "a number";
	int rc;

	switch (k->kind) {
	case KEY_BOOL:
		rc = bool_parse(s, out);
		what = "true or false";
		break;
	case KEY_BYTES:
	case KEY_SIZE:
		rc = text_bytes(s, &bytes);
		*out = bytes > INT64_MAX ? INT64_MAX : (int64_t)bytes;
		what = "a size like 64M";
		break;
	case KEY_MS:
	case KEY_MS32:
		rc = text_duration(s, out);
		what = "a time like 30s";
		break;
	case KEY_LIMIT:
		snprintf(text, sizeof(text), "%s=%s", k->name, s);
		return limit_parse(text, &id, out, em) < 0 ? ERR_CONFIG : 0;
	default:
		rc = plain_parse(s, out);
		break;
	}
	return rc < 0 ? err_set(em, ERR_CONFIG, "'%s' is not %s", s, what) : 0;
}

void config_number_text(const struct key *k, int64_t v, char out[32])
{
	bool time =
		k->kind == KEY_MS || k->kind == KEY_MS32 ||
		(k->kind == KEY_LIMIT &&
			strcmp(limit_units[limit_find(k->name, strlen(k->name))], "ms") == 0);

	if (k->kind == KEY_BOOL)
		snprintf(out, 32, "%s", v ? "true" : "false");
	else if (time && v % 1000 == 0)
		snprintf(out, 32, "%llds", (long long)v / 1000);
	else
		snprintf(out, 32, "%lld%s", (long long)v, time ? "ms" : "");
}

int config_number_check(const struct key *k, const char *s, int64_t *out, struct errmsg *em)
{
	char least[32], most[32];
	int64_t v = 0;
	int rc = number_parse(k, s, &v, em);

	if (rc < 0)
		return rc;
	config_number_text(k, k->min, least);
	config_number_text(k, k->max, most);
	if (v < k->min || v > k->max)
		return err_set(em, ERR_CONFIG, "%s is not from %s to %s", s, least, most);
	*out = v;
	return 0;
}

int config_value_check(const struct key *k, const char *s, struct errmsg *em)
{
	int64_t v;
	size_t n = strlen(s);

	/* So that what is printed reads back as it was, and a log line stays one. */
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return err_set(em, ERR_CONFIG, "a control character in the value");
	if (!text_utf8(s, n) || strstr(s, "${"))
		return err_set(em, ERR_CONFIG, "the value is not plain text");
	if (!config_is_text(k->kind))
		return config_number_check(k, s, &v, em);
	if (k->kind != KEY_RULE && n >= k->cap)
		return err_set(em, ERR_CONFIG, "longer than %zu bytes", k->cap - 1);
	return text_check(k, s, em);
}
