/* The chain of hop records: src/wire/records.c. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "tos/value.h"
#include "wire/records.h"

static struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

static void assert_is(const struct records *r, const char *const *expected, size_t n)
{
	assert_int_equal(records_n(r), n);
	for (size_t i = 0; i < n; i++) {
		struct slice s = records_at(r, i);

		assert_int_equal(s.n, strlen(expected[i]));
		assert_memory_equal(s.p, expected[i], s.n);
	}
	assert_int_equal(records_at(r, n).n, 0);
}

static void what_was_added_is_encoded_loaded_copied_and_added_to(void **state)
{
	static const char *const expected[] = { "first", "second", "3", "", "fifth" };
	AUTOBUF b = BUF_INIT;
	AUTOBUF again = BUF_INIT;
	struct records r, loaded, copy;

	(void)state;
	records_init(&r);
	records_init(&loaded);
	records_init(&copy);
	assert_is(&r, NULL, 0);
	for (size_t i = 0; i < 4; i++)
		assert_true(records_push(&r, text(expected[i])));
	records_put(&r, &b);
	assert_int_equal(records_load(&loaded, slice_buf(&b)), 0);
	assert_is(&loaded, expected, 4);
	records_put(&loaded, &again);
	assert_int_equal(again.len, b.len);
	assert_memory_equal(again.data, b.data, b.len);
	assert_true(records_push(&loaded, text(expected[4])));
	assert_int_equal(records_copy(&copy, &loaded), 0);
	records_fini(&loaded);
	assert_is(&copy, expected, 5);
	records_fini(&r);
	records_fini(&copy);
}

static void many_are_kept_in_order(void **state)
{
	struct records r;
	char s[16];

	(void)state;
	records_init(&r);
	for (int i = 0; i < 1000; i++) {
		snprintf(s, sizeof(s), "record %d", i);
		assert_true(records_push(&r, text(s)));
	}
	for (int i = 0; i < 1000; i++) {
		snprintf(s, sizeof(s), "record %d", i);
		assert_int_equal(records_at(&r, (size_t)i).n, strlen(s));
		assert_memory_equal(records_at(&r, (size_t)i).p, s, strlen(s));
	}
	records_fini(&r);
}

static void what_is_no_array_of_bytes_is_refused_and_nothing_is_left(void **state)
{
	static const struct slice bad[] = {
		{ (const uint8_t *)"", 0 },                     /* nothing */
		{ (const uint8_t *)"\xa0", 1 },                 /* a map */
		{ (const uint8_t *)"\x81\x01", 2 },             /* a number */
		{ (const uint8_t *)"\x82\x41x", 3 },            /* one is missing */
		{ (const uint8_t *)"\x81\x45x", 3 },            /* and cut short */
		{ (const uint8_t *)"\x81\x41xy", 4 },           /* more behind it */
		{ (const uint8_t *)"\x9b\0\0\0\1\0\0\0\0", 9 }, /* more than there can be */
	};
	struct records r;

	(void)state;
	records_init(&r);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_true(records_push(&r, text("before")));
		assert_int_equal(records_load(&r, bad[i]), ERR_MALFORMED);
		assert_is(&r, NULL, 0);
	}
	assert_int_equal(records_load(&r, (struct slice){ (const uint8_t *)"\x80", 1 }), 0);
	assert_is(&r, NULL, 0);
	records_fini(&r);
}

static void a_list_of_values_is_a_chain(void **state)
{
	static const char *const expected[] = { "one", "" };
	struct tos_value *list = tos_array();
	struct records r;

	(void)state;
	tos_push(list, tos_bytes("one", 3));
	tos_push(list, tos_int(2)); /* verifies as nothing */
	records_init(&r);
	assert_int_equal(records_of(&r, list), 0);
	assert_is(&r, expected, 2);
	assert_int_equal(records_of(&r, NULL), 0);
	assert_is(&r, NULL, 0);
	records_fini(&r);
	tos_value_free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_added_is_encoded_loaded_copied_and_added_to),
		cmocka_unit_test(many_are_kept_in_order),
		cmocka_unit_test(what_is_no_array_of_bytes_is_refused_and_nothing_is_left),
		cmocka_unit_test(a_list_of_values_is_a_chain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
