/* Briefcases in files: what is packed by other programs is checked before it is believed. */
#include <string.h>

#include "lib/bundle.h"

#define VALUE_MOST ((size_t)256 << 20)

/* Printed with ?, because what is wrong with it may be its letters. */
static void shown(const char *name, char out[65])
{
	size_t n = 0;

	for (; *name && n < 64; name++)
		out[n++] = *name < 0x20 || *name > 0x7e ? '?' : *name;
	out[n] = 0;
}

static bool name_ok(const struct tos_value *key)
{
	const char *s = tos_as_text(key, NULL);

	if (!s || strlen(s) != tos_len(key) || tos_len(key) > FOLDER_NAME_MAX)
		return false;
	for (; *s; s++)
		if (*s < 0x20 || *s > 0x7e)
			return false;
	return true;
}

int briefcase_valid(const struct tos_value *v, const char *file, struct errmsg *em)
{
	char name[65];

	if (tos_type(v) != TOS_MAP)
		return err_set(em, ERR_MALFORMED,
			"%s: a briefcase is a map of folders, each a list of elements: "
			"{\"NAME\": [...]}",
			file);
	for (size_t i = 0; i < tos_len(v); i++) {
		const struct tos_value *key = tos_key_at(v, i);

		shown(tos_as_text(key, "?"), name);
		if (!name_ok(key))
			return err_set(em, ERR_NAME,
				"%s: folder '%s': a folder's name is printable ASCII, %d bytes "
				"at most",
				file, name, FOLDER_NAME_MAX);
		if (tos_type(tos_value_at(v, i)) != TOS_ARRAY)
			return err_set(em, ERR_MALFORMED,
				"%s: folder '%s' is not a list of elements", file, name);
	}
	return 0;
}

int briefcase_unpack(
	struct slice bytes, const char *file, struct tos_value **out, struct errmsg *em)
{
	struct tos_value *v = NULL;
	struct cbor_cursor c;
	int rc;

	cbor_init(&c, bytes.p, bytes.n);
	cbor_any(&c);
	if (cbor_finish(&c) < 0)
		return err_set(em, ERR_MALFORMED,
			c.p >= c.end
				? "%s: ends at byte %zu in the middle of a value"
				: "%s: byte %zu: not CBOR in the deterministic encoding, or "
				  "bytes behind the briefcase",
			file, (size_t)(c.p - bytes.p));
	rc = tos_decode(bytes.p, bytes.n, VALUE_MOST, &v);
	if (rc < 0)
		return err_set(em, rc, "%s: cannot be read as a briefcase", file);
	rc = briefcase_valid(v, file, em);
	if (rc < 0)
		tos_value_free(v);
	else
		*out = v;
	return rc;
}
