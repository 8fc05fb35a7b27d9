/* Paths: see path.h. Checked here once; Mobility and the CLI read what passed. */
#include "core/path.h"

#include <string.h>

#include "base/text.h"
#include "core/name.h"
#include "tos/value.h"
#include "wire/carrier.h"

#define ALTERNATIVES_MAX 16

static void trim(const char **s, size_t *n)
{
	while (*n && (**s == ' ' || **s == '\t'))
		(*s)++, (*n)--;
	while (*n && ((*s)[*n - 1] == ' ' || (*s)[*n - 1] == '\t'))
		(*n)--;
}

static bool group_ok(const char *s, size_t n)
{
	char name[64];

	return text_copy(name, sizeof(name), s, n) == 0 && name_private_ok(name);
}

static int check_kernel(const char *s, size_t n, struct errmsg *em)
{
	char name[KERNEL_NAME_MAX + 1];

	if (n == 0)
		return err_set(em, ERR_SYNTAX, "a path has an empty entry");
	if (text_copy(name, sizeof(name), s, n) < 0 || !name_kernel_ok(name))
		return err_set(em, ERR_NAME, "'%.*s' in the path is no kernel's name",
			n > 80 ? 80 : (int)n, s);
	return 0;
}

/* One entry: "@group", or kernels between '|'. The normalised text is appended to out. */
static int parse_entry(const char *s, size_t n, struct buf *out, struct errmsg *em)
{
	unsigned choices = 0;

	trim(&s, &n);
	if (n && s[0] == '@') {
		if (!group_ok(s + 1, n - 1))
			return err_set(em, ERR_NAME, "'%.*s' in the path is no group",
				n > 80 ? 80 : (int)n, s);
		return buf_add(out, s, n);
	}
	for (;;) {
		const char *bar = memchr(s, '|', n);
		const char *name = s;
		size_t n_name = bar ? (size_t)(bar - s) : n;
		size_t eaten = n_name + (bar ? 1 : 0);
		int rc;

		trim(&name, &n_name);
		rc = check_kernel(name, n_name, em);
		if (rc < 0)
			return rc;
		if (++choices > ALTERNATIVES_MAX)
			return err_set(em, ERR_TOO_LARGE,
				"more than %d alternatives in a path entry", ALTERNATIVES_MAX);
		if (choices > 1)
			buf_add_u8(out, '|');
		buf_add(out, name, n_name);
		if (!bar)
			return buf_check(out) < 0
				       ? err_set(em, ERR_NOMEM, "no memory for the path")
				       : 0;
		s += eaten;
		n -= eaten;
	}
}

static int parse_entries(const char *s, struct tos_value *path, struct errmsg *em)
{
	AUTOBUF entry = BUF_INIT;

	for (;;) {
		size_t n = strcspn(s, ",");
		int rc;

		buf_clear(&entry);
		rc = parse_entry(s, n, &entry, em);
		if (rc < 0)
			return rc;
		if (tos_len(path) >= PATH_ENTRIES_MAX)
			return err_set(em, ERR_TOO_LARGE, "a path has at most %d entries",
				PATH_ENTRIES_MAX);
		if (tos_push(path, tos_text_n((const char *)entry.data, entry.len)) < 0)
			return err_set(em, ERR_NOMEM, "no memory for the path");
		if (!s[n])
			return 0;
		s += n + 1;
	}
}

int path_parse(const char *text, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *path = tos_array();
	int rc;

	if (!path)
		return err_set(em, ERR_NOMEM, "no memory for the path");
	rc = parse_entries(text, path, em);
	if (rc < 0)
		tos_value_free(path);
	else
		*out = path;
	return rc;
}

/* The members of path in reverse order, groups replaced; reversed so that they can be popped.
 */
static int expand_reversed(const struct tos_value *path, const char *const *kernels, size_t n,
	struct tos_value *out, struct errmsg *em)
{
	for (size_t i = tos_len(path); i-- > 0;) {
		const char *entry = tos_as_text(tos_at(path, i), "");
		bool all = strcmp(entry, "@all") == 0;
		size_t members = all ? n : 1;

		if (entry[0] == '@' && !all)
			return err_set(em, ERR_NOT_FOUND, "there is no group '%s'", entry);
		if (members > PATH_ENTRIES_MAX - tos_len(out))
			return err_set(em, ERR_TOO_LARGE, "a path has at most %d entries",
				PATH_ENTRIES_MAX);
		for (size_t k = members; k-- > 0;)
			if (tos_push(out, tos_text(all ? kernels[k] : entry)) < 0)
				return err_set(em, ERR_NOMEM, "no memory for the path");
	}
	return 0;
}

int path_expand(struct tos_value *path, const char *const *kernels, size_t n, struct errmsg *em)
{
	struct tos_value *reversed = tos_array();
	int rc = reversed ? expand_reversed(path, kernels, n, reversed, em)
			  : err_set(em, ERR_NOMEM, "no memory for the path");

	while (rc == 0 && tos_len(path))
		tos_value_free(tos_take_at(path, tos_len(path) - 1));
	while (rc == 0 && tos_len(reversed))
		rc = tos_push(path, tos_take_at(reversed, tos_len(reversed) - 1));
	tos_value_free(reversed);
	return rc;
}

int path_choice(const char *entry, unsigned nth, char name[64])
{
	for (;; nth--) {
		size_t n = strcspn(entry, "|");

		if (nth == 0)
			return n && text_copy(name, 64, entry, n) == 0 ? 0 : ERR_NOT_FOUND;
		if (!entry[n])
			return ERR_NOT_FOUND;
		entry += n + 1;
	}
}

bool path_is_suffix(const struct tos_value *rest, const struct tos_value *whole)
{
	size_t n = tos_len(rest), m = tos_len(whole);

	if (tos_type(rest) != TOS_ARRAY || tos_type(whole) != TOS_ARRAY || n > m)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct tos_value *a = tos_at(rest, i), *b = tos_at(whole, m - n + i);

		if (tos_type(a) != TOS_TEXT || !tos_equal(a, b))
			return false;
	}
	return true;
}
