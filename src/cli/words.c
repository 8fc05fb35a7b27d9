/* Values from words of the command line: JSON where it is some, text otherwise. */
#include <jansson.h>
#include <string.h>

#include "cli/cli.h"

static struct tos_value *text_value(const json_t *j, bool bytes)
{
	const char *s = json_string_value(j);

	if (bytes && strncmp(s, "base64:", 7) == 0 && strlen(s) == json_string_length(j))
		return base64_value(s + 7);
	return tos_text_n(s, json_string_length(j));
}

static struct tos_value *unless(bool failed, struct tos_value *v)
{
	if (!failed)
		return v;
	tos_value_free(v);
	return NULL;
}

static struct tos_value *object_value(json_t *j, bool bytes)
{
	const char *only = bytes && json_object_size(j) == 1
				   ? json_string_value(json_object_get(j, "base64"))
				   : NULL;
	struct tos_value *v;
	const char *key;
	json_t *item;
	int rc = 0;

	if (only)
		return base64_value(only);
	v = tos_map();
	json_object_foreach(j, key, item) rc =
		rc ? rc : tos_set(v, key, json_value(item, bytes));
	return unless(rc < 0, v);
}

struct tos_value *json_value(const json_t *j, bool bytes)
{
	struct tos_value *v;
	int rc = 0;
	json_t *item;
	size_t i;

	switch (json_typeof(j)) {
	case JSON_STRING:
		return text_value(j, bytes);
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
		json_array_foreach(j, i, item) rc =
			rc ? rc : tos_push(v, json_value(item, bytes));
		return unless(rc < 0, v);
	case JSON_OBJECT:
		return object_value((json_t *)(uintptr_t)j, bytes);
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
	v = json_value(j, false);
	json_decref(j);
	return v;
}
