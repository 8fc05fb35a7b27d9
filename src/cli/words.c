/* Values from words of the command line: JSON where it is some, text otherwise. */
#include <jansson.h>
#include <string.h>

#include "cli/cli.h"

static struct tos_value *from_json(const json_t *j)
{
	struct tos_value *v;
	const char *key;
	json_t *item;
	size_t i;

	switch (json_typeof(j)) {
	case JSON_STRING:
		return tos_text_n(json_string_value(j), json_string_length(j));
	case JSON_INTEGER:
		return tos_int(json_integer_value(j));
	case JSON_REAL:
		return tos_float(json_real_value(j));
	case JSON_TRUE:
	case JSON_FALSE:
		return tos_bool(json_is_true(j));
	case JSON_NULL:
		return tos_nil();
	case JSON_ARRAY:
		v = tos_array();
		json_array_foreach(j, i, item) if (tos_push(v, from_json(item)) < 0) break;
		return v;
	case JSON_OBJECT:
		v = tos_map();
		json_object_foreach((json_t *)(uintptr_t)j, key,
			item) if (tos_set(v, key, from_json(item)) < 0) break;
		return v;
	}
	return NULL;
}

struct tos_value *word_value(const char *word, bool as_text)
{
	struct tos_value *v;
	json_t *j;

	if (as_text)
		return tos_text(word);
	j = json_loads(word, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
	if (!j)
		return tos_text(word);
	v = from_json(j);
	json_decref(j);
	return v;
}
