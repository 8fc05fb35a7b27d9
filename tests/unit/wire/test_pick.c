/* Fields of encoded maps: src/wire/pick.c. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/err.h"
#include "tos/value.h"
#include "wire/cbor.h"
#include "wire/pick.h"

static const char *const names[] = { "n", "who", "yes", "bytes", "list", "none" };
enum { N, WHO, YES, BYTES, LIST, NONE, COUNT };

static void row(struct buf *b)
{
	cbor_put_map(b, 6);
	cbor_put_text(b, "n");
	cbor_put_int(b, -7);
	cbor_put_text(b, "who");
	cbor_put_text(b, "host0#42");
	cbor_put_text(b, "yes");
	cbor_put_bool(b, true);
	cbor_put_text(b, "list");
	cbor_put_array(b, 2);
	cbor_put_int(b, 1);
	cbor_put_null(b);
	cbor_put_text(b, "bytes");
	cbor_put_bytes(b, "\1\0\2", 3);
	cbor_put_text(b, "other");
	cbor_put_array(b, 0);
}

static void fields_are_found_wherever_they_are(void **state)
{
	AUTOBUF b = BUF_INIT;
	struct slice f[COUNT];
	struct tos_value *v;
	char text[32];

	(void)state;
	row(&b);
	assert_int_equal(pick(slice_buf(&b), names, COUNT, f), 0);
	assert_int_equal(pick_int(f[N], 0), -7);
	pick_text(f[WHO], text, sizeof(text));
	assert_string_equal(text, "host0#42");
	assert_true(pick_bool(f[YES], false));
	assert_int_equal(pick_bytes(f[BYTES]).n, 3);
	assert_memory_equal(pick_bytes(f[BYTES]).p, "\1\0\2", 3);
	v = pick_value(f[LIST]);
	assert_int_equal(tos_len(v), 2);
	tos_value_free(v);
}

static void what_is_not_there_or_another_type_is_the_default(void **state)
{
	AUTOBUF b = BUF_INIT;
	struct slice f[COUNT];
	char text[4] = "x";

	(void)state;
	row(&b);
	assert_int_equal(pick(slice_buf(&b), names, COUNT, f), 0);
	assert_int_equal(f[NONE].n, 0);
	assert_int_equal(pick_int(f[NONE], 5), 5);
	assert_int_equal(pick_int(f[WHO], 6), 6);
	assert_true(pick_bool(f[N], true));
	assert_null(pick_bytes(f[LIST]).p);
	pick_text(f[NONE], text, sizeof(text));
	assert_string_equal(text, "");
	assert_null(pick_value(f[NONE]));
}

/* Cut anywhere, or with another byte anywhere: what decodes is picked from, all else is refused. */
static void it_is_as_strict_as_the_decoder(void **state)
{
	AUTOBUF b = BUF_INIT;
	struct slice f[COUNT];

	(void)state;
	row(&b);
	for (size_t n = 0; n < b.len; n++)
		assert_int_equal(
			pick((struct slice){ b.data, n }, names, COUNT, f), ERR_MALFORMED);
	for (size_t at = 0; at < b.len; at++) {
		uint8_t was = b.data[at];

		for (unsigned other = 0; other < 256; other++) {
			struct tos_value *v = NULL;
			int rc;

			b.data[at] = (uint8_t)other;
			rc = tos_decode(b.data, b.len, 1 << 20, &v);
			/* a map whose other keys are numbers is no row */
			if (rc < 0)
				assert_true(pick(slice_buf(&b), names, COUNT, f) < 0);
			tos_value_free(v);
		}
		b.data[at] = was;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_found_wherever_they_are),
		cmocka_unit_test(what_is_not_there_or_another_type_is_the_default),
		cmocka_unit_test(it_is_as_strict_as_the_decoder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
