/*
 * What an extension says of itself, before any of it runs: is the constant well-formed, are its names
 * and bounds, and was it granted what it asks for?
 */
#include "ext/body.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

bool body_inbox_name_ok(const char *s)
{
	size_t n = 1;

	if (!s || *s < 'A' || *s > 'Z')
		return false;
	for (; s[n]; n++)
		if (!isalnum((unsigned char)s[n]) && s[n] != '-' && s[n] != '.')
			return false;
	return n <= 63;
}

static bool extension_name_ok(const char *s)
{
	size_t n = 0;

	for (; s && s[n]; n++)
		if (!islower((unsigned char)s[n]) && !isdigit((unsigned char)s[n]) &&
			s[n] != '-' && s[n] != '.' && s[n] != '_')
			return false;
	return n >= 1 && n <= 63;
}

static bool path_ok(const char *s)
{
	size_t n = 0;

	for (; s && s[n]; n++)
		if (!isalnum((unsigned char)s[n]) && !strchr("_-./", s[n]))
			return false;
	return n >= 1 && n <= 63 && *s != '/';
}

int body_value_ok(const char *type, int64_t min, int64_t max, const char *value)
{
	bool bounded = min || max;
	int64_t i;
	double d;
	char *end;

	if (!type || !value || strlen(value) >= EXT_VALUE_BYTES ||
		!text_utf8(value, strlen(value)))
		return ERR_MALFORMED;
	if (strcmp(type, "text") == 0)
		return 0;
	if (strcmp(type, "bool") == 0)
		return strcmp(value, "true") == 0 || strcmp(value, "false") == 0
			       ? 0
			       : ERR_MALFORMED;
	if (strcmp(type, "int") == 0)
		return text_int(value, bounded ? min : INT64_MIN, bounded ? max : INT64_MAX,
			       &i) < 0
			       ? ERR_MALFORMED
			       : 0;
	if (strcmp(type, "float") != 0)
		return ERR_MALFORMED;
	d = strtod(value, &end);
	if (end == value || *end || !isfinite(d))
		return ERR_MALFORMED;
	return bounded && (d < (double)min || d > (double)max) ? ERR_MALFORMED : 0;
}

static int check_inboxes(const struct tos_inbox_spec *in, struct errmsg *em)
{
	size_t n = 0;

	for (; in && in[n].name; n++) {
		if (n == EXT_INBOXES_MAX)
			return err_set(em, ERR_MALFORMED, "declares more than %d inboxes",
				EXT_INBOXES_MAX);
		if (!body_inbox_name_ok(in[n].name))
			return err_set(
				em, ERR_NAME, "\"%.64s\" is no name for an inbox", in[n].name);
		if (!in[n].wake)
			return err_set(em, ERR_MALFORMED, "inbox %s has no function to wake",
				in[n].name);
		for (size_t i = 0; i < n; i++)
			if (strcmp(in[i].name, in[n].name) == 0)
				return err_set(
					em, ERR_EXISTS, "declares inbox %s twice", in[n].name);
	}
	return n ? 0 : err_set(em, ERR_MALFORMED, "declares no inbox");
}

static int check_properties(const struct tos_property_spec *p, struct errmsg *em)
{
	for (size_t n = 0; p && p[n].path; n++) {
		if (n == EXT_PROPERTIES_MAX)
			return err_set(em, ERR_MALFORMED, "declares more than %d properties",
				EXT_PROPERTIES_MAX);
		if (!path_ok(p[n].path))
			return err_set(
				em, ERR_NAME, "\"%.64s\" is no path of a property", p[n].path);
		if (body_value_ok(p[n].type, p[n].min, p[n].max, p[n].value ? p[n].value : "") <
			0)
			return err_set(em, ERR_MALFORMED,
				"property %s has a type or a default that does not fit",
				p[n].path);
	}
	return 0;
}

int body_check(const struct tos_extension *spec, struct errmsg *em)
{
	int rc;

	if (spec->abi_major != TOS_ABI_MAJOR || spec->abi_minor > TOS_ABI_MINOR)
		return err_set(em, ERR_VERSION, "is built for ABI %u.%u; this kernel has %u.%u",
			spec->abi_major, spec->abi_minor, TOS_ABI_MAJOR, TOS_ABI_MINOR);
	if (spec->size != sizeof(*spec)) /* 1.0 is the only minor so far */
		return err_set(em, ERR_VERSION, "has a constant of %u bytes instead of %zu",
			spec->size, sizeof(*spec));
	if (!extension_name_ok(spec->name))
		return err_set(em, ERR_NAME, "has no name in lower case");
	rc = check_inboxes(spec->inboxes, em);
	return rc < 0 ? rc : check_properties(spec->properties, em);
}

static bool word_in(const char *word, size_t n, const char *words)
{
	for (const char *p = words; p && *p;) {
		size_t len;

		p += strspn(p, " ,");
		len = strcspn(p, " ,");
		if (len == n && memcmp(p, word, n) == 0)
			return true;
		p += len;
	}
	return false;
}

int body_privileges_ok(const char *asked, const char *granted, struct errmsg *em)
{
	for (const char *p = asked; p && *p;) {
		size_t n;

		p += strspn(p, " ,");
		n = strcspn(p, " ,");
		if (n && !word_in(p, n, granted))
			return err_set(em, ERR_DENIED,
				"needs the privilege %.*s, which the configuration does not "
				"grant",
				(int)n, p);
		p += n;
	}
	return 0;
}
