/* An index and what became of its statements: see index.h. */
#include "index.h"

#include <tos/extension.h>

struct tos_value *index_read(const uint8_t *p, size_t n, const char **wrong)
{
	struct tos_value *v = NULL;
	size_t bytes;

	*wrong = "it is no index: one CBOR array of statements";
	if (n > INDEX_BYTES_MAX || tos_decode(p, n, INDEX_BYTES_MAX * 4, &v) < 0)
		return NULL;
	if (tos_type(v) == TOS_ARRAY && tos_len(v) > 0 && tos_len(v) <= INDEX_STATEMENTS_MAX)
		*wrong = NULL;
	for (size_t i = 0; !*wrong && i < tos_len(v); i++)
		if (tos_type(tos_at(v, i)) != TOS_BYTES || !tos_as_bytes(tos_at(v, i), &bytes))
			*wrong = "an index holds statements, and nothing else";
	if (!*wrong)
		return v;
	tos_value_free(v);
	return NULL;
}

int index_rows(const struct tos_value *statements, const struct tos_value *checked,
	struct tos_value **rows, struct tos_value **refused, const char **text)
{
	size_t n = tos_len(statements);
	int rc;

	*text = "the kernel did not say what it thinks of the index";
	if (tos_type(checked) != TOS_ARRAY || tos_len(checked) != n)
		return TOS_ERR_MALFORMED;
	*rows = tos_array();
	*refused = tos_array();
	for (size_t i = 0; i < n; i++) {
		const struct tos_value *row = tos_at(checked, i);
		struct tos_value *copy = tos_value_copy(row);

		if (tos_get(row, "code")) {
			tos_push(*refused, copy);
			continue;
		}
		tos_set(copy, "statement", tos_value_copy(tos_at(statements, i)));
		tos_push(*rows, copy);
	}
	if (tos_len(*rows) > 0)
		return 0;
	*text = tos_get_text(tos_at(checked, 0), "text", "");
	rc = (int)tos_get_int(tos_at(*refused, 0), "code", TOS_ERR_MALFORMED);
	tos_value_free(*rows);
	tos_value_free(*refused);
	*rows = *refused = NULL;
	return rc < 0 ? rc : TOS_ERR_MALFORMED;
}
