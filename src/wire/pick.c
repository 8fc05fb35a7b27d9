/* Fields of encoded maps: see pick.h. */
#include "wire/pick.h"

#include <tos/value.h>

#include "base/err.h"
#include "base/mem.h"
#include "wire/cbor.h"

#define VALUE_BYTES_MAX ((size_t)512 << 20)

/* From behind the last one on: where the names are in the order of keys it is the next that is there. */
static size_t name_find(
	const char *const *names, const size_t *length, size_t n, size_t from, struct slice key)
{
	for (size_t i = 0; i < n; i++, from++) {
		if (from >= n)
			from = 0;
		if (length[from] == key.n && memcmp(names[from], key.p, key.n) == 0)
			return from;
	}
	return n;
}

int pick(struct slice map, const char *const *names, size_t n, struct slice *out)
{
	size_t length[PICK_MAX];
	struct cbor_cursor c;
	uint64_t pairs;
	size_t next = 0;

	must(n <= PICK_MAX);
	for (size_t i = 0; i < n; i++) {
		length[i] = strlen(names[i]);
		out[i] = (struct slice){ NULL, 0 };
	}
	cbor_init(&c, map.p, map.n);
	pairs = cbor_open_map_max(&c, map.n);
	for (uint64_t i = 0; i < pairs && c.rc == 0; i++) {
		struct slice key = cbor_text(&c, 0, map.n);
		struct slice item = cbor_any(&c);
		size_t at = c.rc == 0 ? name_find(names, length, n, next, key) : n;

		if (at < n) {
			out[at] = item;
			next = at + 1;
		}
	}
	cbor_close(&c);
	return cbor_finish(&c);
}

int64_t pick_int(struct slice item, int64_t def)
{
	struct cbor_cursor c;
	int64_t v;

	cbor_init(&c, item.p, item.n);
	v = cbor_int(&c);
	return cbor_finish(&c) == 0 ? v : def;
}

bool pick_bool(struct slice item, bool def)
{
	struct cbor_cursor c;
	bool v;

	cbor_init(&c, item.p, item.n);
	v = cbor_bool(&c);
	return cbor_finish(&c) == 0 ? v : def;
}

struct slice pick_bytes(struct slice item)
{
	struct cbor_cursor c;
	struct slice s;

	cbor_init(&c, item.p, item.n);
	s = cbor_peek(&c) == CBOR_TEXT ? cbor_text(&c, 0, SIZE_MAX)
				       : cbor_bytes(&c, 0, SIZE_MAX);
	return cbor_finish(&c) == 0 ? s : (struct slice){ NULL, 0 };
}

void pick_text(struct slice item, char *out, size_t cap)
{
	slice_copy_text(pick_bytes(item), out, cap);
}

struct tos_value *pick_value(struct slice item)
{
	struct tos_value *v = NULL;

	return item.n && tos_decode(item.p, item.n, VALUE_BYTES_MAX, &v) == 0 ? v : NULL;
}
