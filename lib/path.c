/* Paths as people write them: "host0,host1|host2,@all". */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "lib/bundle.h"
#include "lib/groups.h"
#include "lib/home.h"
#include "wire/carrier.h"

/* :PORT behind a name, but not the one that is meant without. */
static bool port_ok(const char *s, size_t n)
{
	unsigned port = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]) || i > 4)
			return false;
		port = 10 * port + (unsigned)(s[i] - '0');
	}
	return n > 0 && s[0] != '0' && port < 65536 && port != 21212;
}

bool path_kernel_ok(const char *s, size_t n)
{
	const char *colon = memchr(s, ':', n);

	if (n > 63 || (colon && !port_ok(colon + 1, n - (size_t)(colon + 1 - s))))
		return false;
	if (colon)
		n = (size_t)(colon - s);
	if (n == 0 || n > 63 || !(islower((unsigned char)*s) || isdigit((unsigned char)*s)))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(islower((unsigned char)s[i]) || isdigit((unsigned char)s[i]) ||
			    s[i] == '.' || s[i] == '-'))
			return false;
	return true;
}

static int check_entry(const char *s, size_t n, struct errmsg *em)
{
	for (;;) {
		const char *bar = memchr(s, '|', n);
		size_t part = bar ? (size_t)(bar - s) : n;

		if (!path_kernel_ok(s, part))
			return err_set(em, ERR_NAME,
				"'%.*s' in the path is no kernel's name (lower case, "
				"digits, - and .); a path is written host0,host1|host2,@all",
				(int)(part > 64 ? 64 : part), s);
		if (!bar)
			return 0;
		n -= part + 1;
		s = bar + 1;
	}
}

static int add_group(struct tos_value *out, const char *s, size_t n,
	const struct groups *groups, const struct names *all, struct errmsg *em)
{
	struct names members = { NULL, 0 };
	char selector[160];
	int rc = text_copy(selector, sizeof(selector), s, n);

	if (rc < 0 || !groups_selector_ok(selector + 1))
		return err_set(em, ERR_NAME,
			"'%.*s' in the path is no group; they are written @all, @web, @os=debian",
			(int)(n > 64 ? 64 : n), s);
	if (!all)
		return tos_push(out, tos_text(selector));
	rc = groups_select(groups, selector, all, &members, em);
	for (size_t i = 0; i < members.n && rc == 0; i++)
		rc = tos_push(out, tos_text(members.v[i]));
	names_fini(&members);
	return rc;
}

int path_entries(const char *text, const struct groups *groups, const struct names *all,
	struct tos_value **out, struct errmsg *em)
{
	struct tos_value *v = tos_array();
	int rc = 0;

	while (*text && rc == 0) {
		size_t n = strcspn(text, ","), skip = strspn(text, " \t");
		size_t end = n;

		while (end > skip && isspace((unsigned char)text[end - 1]))
			end--;
		if (skip >= end)
			rc = err_set(em, ERR_NAME,
				"the path has an empty entry; it is written "
				"host0,host1|host2,@all");
		else if (text[skip] == '@')
			rc = add_group(v, text + skip, end - skip, groups, all, em);
		else if ((rc = check_entry(text + skip, end - skip, em)) == 0)
			rc = tos_push(v, tos_text_n(text + skip, end - skip));
		if (rc == 0 && tos_len(v) > PATH_ENTRIES_MAX)
			rc = err_set(em, ERR_TOO_LARGE, "the path has more than %d entries",
				PATH_ENTRIES_MAX);
		if (text[n] == ',' && !text[n + 1] && rc == 0)
			rc = err_set(em, ERR_NAME, "the path ends with a comma");
		text += n + (text[n] == ',');
	}
	if (rc < 0)
		tos_value_free(v);
	else
		*out = v;
	return rc;
}

bool path_alternative(const char *entry, unsigned nth, char name[64])
{
	while (nth--) {
		entry = strchr(entry, '|');
		if (!entry)
			return false;
		entry++;
	}
	snprintf(name, 64, "%.*s", (int)(strcspn(entry, "|") > 63 ? 63 : strcspn(entry, "|")),
		entry);
	return *name != 0;
}
