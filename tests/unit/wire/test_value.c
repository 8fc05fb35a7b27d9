/* Values: src/wire/value.c. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include <tos/value.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/tree.h"

static void value_drop(struct tos_value **v)
{
	tos_value_free(*v);
}
#define AUTOVALUE __attribute__((cleanup(value_drop))) struct tos_value

static void encodes_to(const struct tos_value *v, const char *hex)
{
	AUTOFREE uint8_t *p = NULL;
	AUTOFREE char *text = NULL;
	size_t n;

	assert_int_equal(tos_encode(v, &p, &n), 0);
	text = mem_zero(2 * n + 1);
	assert_string_equal(text_hex(p, n, text), hex);
}

static struct tos_value *from_hex(const char *hex)
{
	struct tos_value *v = NULL;
	uint8_t bytes[256];
	size_t n = strlen(hex) / 2;

	must(n <= sizeof(bytes) && text_unhex(hex, 2 * n, bytes, n) == 0);
	assert_int_equal(tos_decode_state(bytes, n, 0, &v), 0);
	return v;
}

static void map_keeps_deterministic_order_whatever_came_first(void **state)
{
	AUTOVALUE *m = tos_map();

	(void)state;
	assert_int_equal(tos_set_value(m, tos_bool(false), tos_int(6)), 0);
	assert_int_equal(tos_set(m, "aa", tos_int(5)), 0);
	assert_int_equal(tos_set_value(m, tos_int(-1), tos_int(3)), 0);
	assert_int_equal(tos_set(m, "z", tos_int(9)), 0);
	assert_int_equal(tos_set_value(m, tos_int(100), tos_int(2)), 0);
	assert_int_equal(tos_set_value(m, tos_int(10), tos_int(1)), 0);
	assert_int_equal(tos_set(m, "z", tos_int(4)), 0); /* replaces */
	assert_int_equal(tos_len(m), 6);
	encodes_to(m, "a60a011864022003617a0462616105f406");
	assert_int_equal(tos_get_int(m, "z", -1), 4);
	assert_true(tos_unset(m, "z"));
	assert_false(tos_unset(m, "z"));
	assert_null(tos_get(m, "z"));
	encodes_to(m, "a50a01186402200362616105f406");
	assert_int_equal(tos_as_int(tos_key_at(m, 1), 0), 100);
	assert_int_equal(tos_as_int(tos_value_at(m, 1), 0), 2);
	assert_null(tos_key_at(m, 5));
}

static void many_keys_are_found_again(void **state)
{
	AUTOVALUE *m = tos_map();
	AUTOVALUE *back = NULL;
	AUTOFREE uint8_t *p = NULL;
	char key[16];
	size_t n;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "k%u", i * 7919 % 1000);
		assert_int_equal(tos_set(m, key, tos_int(i * 7919 % 1000)), 0);
	}
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(tos_get_int(m, key, -1), i);
	}
	assert_int_equal(tos_encode(m, &p, &n), 0);
	assert_int_equal(tos_decode(p, n, 0, &back), 0); /* so the order is the right one */
	assert_true(tos_equal(m, back));
}

static void containers_take_what_they_are_given_also_when_they_fail(void **state)
{
	AUTOVALUE *a = tos_array();
	AUTOVALUE *m = tos_map();

	(void)state;
	assert_int_equal(tos_push(a, NULL), ERR_NOMEM);
	assert_int_equal(tos_push(NULL, tos_int(1)), ERR_NOMEM);
	assert_int_equal(tos_push(m, tos_int(1)), ERR_USAGE);
	assert_int_equal(tos_set(a, "x", tos_text("y")), ERR_USAGE);
	assert_int_equal(tos_set(m, "x", NULL), ERR_NOMEM);
	assert_int_equal(tos_set(m, "\xff", tos_int(1)), ERR_USAGE);
	assert_int_equal(tos_set_value(m, tos_array(), tos_int(1)), ERR_USAGE);
	assert_int_equal(tos_len(m), 0);
	assert_null(tos_text("\xff"));
	assert_null(tos_tag(18, tos_array()));
	assert_null(tos_tag(29, tos_text("no number")));
}

static void arrays_give_and_take(void **state)
{
	AUTOVALUE *a = tos_array();
	AUTOVALUE *first = NULL;

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(tos_push(a, tos_int(i)), 0);
	first = tos_take_at(a, 0);
	assert_int_equal(tos_as_int(first, -1), 0);
	assert_int_equal(tos_as_int(tos_at(a, 0), -1), 1);
	assert_int_equal(tos_len(a), 9);
	assert_null(tos_take_at(a, 9));
	assert_null(tos_at(a, 9));
	assert_non_null(tos_at_mut(a, 8));
}

static void getters_answer_the_default_for_another_type(void **state)
{
	AUTOVALUE *m = tos_map();
	size_t n = 7;

	(void)state;
	tos_set(m, "i", tos_int(3));
	tos_set(m, "t", tos_textf("%d-%s", 5, "x"));
	tos_set(m, "f", tos_float(1.5));
	tos_set(m, "b", tos_bool(true));
	assert_int_equal(tos_get_int(m, "t", -1), -1);
	assert_int_equal(tos_get_int(m, "f", -1), -1);
	assert_true(tos_get_float(m, "i", 0) == 3.0);
	assert_true(tos_get_float(m, "f", 0) == 1.5);
	assert_string_equal(tos_get_text(m, "t", ""), "5-x");
	assert_string_equal(tos_get_text(m, "i", "none"), "none");
	assert_true(tos_get_bool(m, "b", false));
	assert_false(tos_get_bool(m, "missing", false));
	assert_null(tos_get_bytes(m, "i", &n));
	assert_int_equal(n, 0);
	assert_memory_equal(tos_get_bytes(m, "t", &n), "5-x", 4);
	assert_int_equal(n, 3);
	assert_int_equal(tos_type(NULL), TOS_NIL);
	assert_int_equal(tos_len(NULL), 0);
}

static void copies_are_equal_and_apart(void **state)
{
	AUTOVALUE *v = from_hex("a3616182f5f661624201026163d81c81d81d00");
	AUTOVALUE *copy = tos_value_copy(v);

	(void)state;
	assert_true(tos_equal(v, copy));
	tos_push(tos_get_mut(copy, "a"), tos_int(1));
	assert_false(tos_equal(v, copy));
	AUTOVALUE *one = tos_int(1), *float_one = tos_float(1),
		  *nan = tos_float(__builtin_nan(""));

	assert_false(tos_equal(one, float_one));
	assert_true(tos_equal(nan, nan));
	assert_true(tos_equal(NULL, NULL));
}

static void trees_that_are_too_deep_are_freed_but_not_encoded(void **state)
{
	struct tos_value *v = tos_array();
	uint8_t *p;
	size_t n;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		struct tos_value *outer = tos_array();

		assert_int_equal(tos_push(outer, v), 0);
		v = outer;
	}
	assert_int_equal(tos_encode(v, &p, &n), ERR_TOO_LARGE);
	assert_null(tos_to_json(v, 0));
	assert_null(tos_to_diag(v));
	assert_null(tos_value_copy(v));
	tos_value_free(v);
}

static void decoding_stays_within_its_memory(void **state)
{
	uint8_t many[1 + 4 + 10000];
	struct tos_value *v = NULL;

	(void)state;
	memset(many, 0, sizeof(many));
	memcpy(many, "\x9a\x00\x00\x27\x14", 5);
	assert_int_equal(tos_decode(many, 5 + 10004, 0, &v),
		ERR_MALFORMED); /* cut: 10004 are not there */
	memcpy(many, "\x99\x27\x10", 3);
	assert_int_equal(tos_decode(many, 3 + 10000, 64 << 10, &v), ERR_TOO_LARGE);
	assert_null(v);
	assert_int_equal(tos_decode(many, 3 + 10000, 0, &v), 0);
	assert_int_equal(tos_len(v), 10000);
	tos_value_free(v);
}

static void tags_are_for_state_only(void **state)
{
	AUTOVALUE *v = from_hex("82d81c81f5d81d00");
	struct tos_value *none = NULL;

	(void)state;
	assert_int_equal(tos_type(tos_at(v, 0)), TOS_TAG);
	assert_int_equal(tos_tag_number(tos_at(v, 0)), 28);
	assert_int_equal(tos_len(tos_tag_value(tos_at(v, 0))), 1);
	encodes_to(v, "82d81c81f5d81d00");
	assert_int_equal(tos_decode("\xd8\x1c\x80", 3, 0, &none), ERR_MALFORMED);
	AUTOVALUE *made = tos_array();

	tos_push(made, tos_tag(28, tos_array()));
	tos_push(made, tos_tag(29, tos_int(0)));
	encodes_to(made, "82d81c80d81d00");
}

static void text_for_people_is_json_and_diagnostic(void **state)
{
	AUTOVALUE *v =
		from_hex("a7016161617882f5f661794401020304617afb3ff199999999999a626e61f97e00"
			 "6373747267610a225cc3a97f65656d70747980");
	AUTOFREE char *json = tos_to_json(v, 0);
	AUTOFREE char *diag = tos_to_diag(v);
	AUTOVALUE *small = from_hex("a2616101616281f93c00");
	AUTOFREE char *lines = tos_to_json(small, 2);

	(void)state;
	assert_string_equal(json,
		"{\"1\": \"a\", \"x\": [true, null], \"y\": \"base64:AQIDBA==\", \"z\": 1.1, "
		"\"na\": null, \"str\": \"a\\n\\\"\\\\\u00e9\\u007f\", \"empty\": []}");
	assert_string_equal(diag,
		"{1: \"a\", \"x\": [true, null], \"y\": h'01020304', \"z\": 1.1, \"na\": NaN, "
		"\"str\": \"a\\n\\\"\\\\\u00e9\\u007f\", \"empty\": []}");
	assert_string_equal(lines, "{\n  \"a\": 1,\n  \"b\": [\n    1.0\n  ]\n}");
}

static void decoding_survives_each_failed_allocation(void **state)
{
	static const uint8_t in[] = { 0xa2, 0x61, 'a', 0x82, 0xd8, 0x1c, 0x81, 0x43, 1, 2, 3,
		0xd8, 0x1d, 0, 0x61, 'b', 0xa1, 1, 0xf9, 0x3c, 0 };
	unsigned nth;

	(void)state;
	for (nth = 1; fault_alloc(nth); nth++) {
		struct tos_value *v = NULL;
		int rc = tos_decode_state(in, sizeof(in), 0, &v);

		if (rc == 0)
			tos_value_free(v);
		else
			assert_int_equal(rc, ERR_NOMEM);
	}
	assert_true(nth > 10);
}

static void building_copying_and_encoding_survive_too(void **state)
{
	(void)state;
	for (unsigned nth = 1; fault_alloc(nth); nth++) {
		struct tos_value *m = tos_map(), *a = tos_array(), *copy;
		uint8_t *p = NULL;
		size_t n;
		int rc = 0;

		for (int i = 0; rc == 0 && i < 5; i++)
			rc = tos_push(a, tos_tag(28, tos_textf("%d", i)));
		if (rc == 0)
			rc = tos_set(m, "list", STEAL(a));
		copy = rc == 0 ? tos_value_copy(m) : NULL;
		if (copy) {
			assert_true(tos_equal(m, copy));
			rc = tos_encode(copy, &p, &n);
		}
		assert_true(rc == 0 || rc == ERR_NOMEM);
		free(tos_to_json(m, 2));
		free(p);
		tos_value_free(copy);
		tos_value_free(a);
		tos_value_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_keeps_deterministic_order_whatever_came_first),
		cmocka_unit_test(many_keys_are_found_again),
		cmocka_unit_test(containers_take_what_they_are_given_also_when_they_fail),
		cmocka_unit_test(arrays_give_and_take),
		cmocka_unit_test(getters_answer_the_default_for_another_type),
		cmocka_unit_test(copies_are_equal_and_apart),
		cmocka_unit_test(trees_that_are_too_deep_are_freed_but_not_encoded),
		cmocka_unit_test(decoding_stays_within_its_memory),
		cmocka_unit_test(tags_are_for_state_only),
		cmocka_unit_test(text_for_people_is_json_and_diagnostic),
		cmocka_unit_test(decoding_survives_each_failed_allocation),
		cmocka_unit_test(building_copying_and_encoding_survive_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
