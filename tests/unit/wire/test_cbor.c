/* The CBOR reader and writer: src/wire/cbor.c. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/cbor.h"

static int check(const char *hex, bool tags)
{
	size_t n = strlen(hex) / 2;
	uint8_t bytes[256];

	must(n <= sizeof(bytes));
	must(text_unhex(hex, 2 * n, bytes, n) == 0);
	AUTOFREE uint8_t *exact = mem_try(n); /* so that a sanitizer sees a byte too many */

	memcpy(exact, bytes, n);
	return cbor_check(exact, n, tags);
}

static void what_is_not_deterministic_is_refused(void **state)
{
	static const char *const bad[] = {
		"", /* nothing */
		"1817", "190017", "1900ff", "1a0000ffff",
		"1b00000000ffffffff", /* not the shortest */
		"3817", "580161", "780161", "980101", "b8010101", "1c", "1d", "1e",
		"1f",                                               /* reserved */
		"5f4101ff", "7f6161ff", "9f01ff", "bf0101ff", "ff", /* indefinite */
		"f7", "f0", "f818", "f8ff", "f814", /* undefined, simple values */
		"f97e01", "fa7fc00000", "fb7ff8000000000000",
		"f9fe00", /* a NaN that is not 7e00 */
		"fa3f800000", "fb3ff0000000000000",
		"fb3ff8000000000000",                       /* longer than it must be */
		"fa33800000",                               /* 2^-24, the smallest half */
		"a201010100",                               /* the same key twice */
		"a202010101",                               /* keys out of order */
		"a2616201616101",                           /* keys out of order */
		"a26162016101",                             /* cut */
		"a18001",                                   /* a container as a key */
		"c001", "d81c01", "d9010080",               /* tags without leave */
		"61ff", "62c328", "63eda080", "64f4908080", /* not UTF-8 */
		"8201", "0101", "a101", "41", "6261", "19ff",
		"fb00", /* cut, or more than one */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (check(bad[i], false) != ERR_MALFORMED)
			fail_msg("%s was not refused", bad[i]);
	}
}

static void map_keys_ascend_bytewise_and_are_no_containers(void **state)
{
	(void)state;
	/* 10, 100, -1, "z", "aa", false: the order of RFC 8949, section 4.2.1 */
	assert_int_equal(check("a60a011864022003617a0462616105f406", false), 0);
	assert_int_equal(check("a2200018640a", false), ERR_MALFORMED); /* -1 before 100 */
	assert_int_equal(check("a262616101617a02", false), ERR_MALFORMED);
	assert_int_equal(check("a1810101", false), ERR_MALFORMED); /* an array as a key */
	assert_int_equal(check("a1a001", false), ERR_MALFORMED);
	assert_int_equal(check("a1d81c6101", true), ERR_MALFORMED);
}

static void lengths_are_checked_against_what_is_left(void **state)
{
	(void)state;
	assert_int_equal(check("9bffffffffffffffff", false), ERR_MALFORMED);
	assert_int_equal(check("bb7fffffffffffffff", false), ERR_MALFORMED);
	assert_int_equal(check("bbffffffffffffffff0000", false), ERR_MALFORMED);
	assert_int_equal(check("5bffffffffffffffff", false), ERR_MALFORMED);
	assert_int_equal(check("7a7fffffff6161", false), ERR_MALFORMED);
	assert_int_equal(check("9a00010000", false), ERR_MALFORMED);
}

static void nesting_ends_at_thirty_two(void **state)
{
	uint8_t deep[64];

	(void)state;
	memset(deep, 0x81, sizeof(deep));
	deep[CBOR_DEPTH_MAX - 1] = 0x80;
	assert_int_equal(cbor_check(deep, CBOR_DEPTH_MAX, false), 0);
	deep[CBOR_DEPTH_MAX - 1] = 0x81;
	deep[CBOR_DEPTH_MAX] = 0x80;
	assert_int_equal(cbor_check(deep, CBOR_DEPTH_MAX + 1, false), ERR_TOO_LARGE);
}

static void only_state_has_tags_and_only_two(void **state)
{
	(void)state;
	assert_int_equal(check("d81c80", true), 0);
	assert_int_equal(check("82d81c80d81d00", true), 0);
	assert_int_equal(check("d81c80", false), ERR_MALFORMED);
	assert_int_equal(check("c100", true), ERR_MALFORMED);
	assert_int_equal(check("d81d20", true), ERR_MALFORMED);     /* a negative reference */
	assert_int_equal(check("d81cd81c80", true), ERR_MALFORMED); /* a tag on a tag */
	assert_int_equal(check("d81c", true), ERR_MALFORMED);
	assert_int_equal(check("81d81c", true), ERR_MALFORMED);
}

static void integers_of_values_fit_int64(void **state)
{
	(void)state;
	assert_int_equal(check("1b7fffffffffffffff", false), 0);
	assert_int_equal(check("1b8000000000000000", false), ERR_TOO_LARGE);
	assert_int_equal(check("3b7fffffffffffffff", false), 0);
	assert_int_equal(check("3b8000000000000000", false), ERR_TOO_LARGE);
}

static void first_failure_stays_and_reads_give_nothing(void **state)
{
	struct cbor_cursor c;

	(void)state;
	cbor_init(&c, "\x83\x01\x61\x61\x02", 5);
	cbor_open_array(&c, 3);
	assert_int_equal(cbor_uint(&c, 0), 0); /* 1 is more than 0 */
	assert_int_equal(c.rc, ERR_TOO_LARGE);
	assert_null(cbor_text(&c, 0, 9).p);
	assert_int_equal(cbor_int(&c), 0);
	assert_int_equal(cbor_any(&c).n, 0);
	assert_int_equal(cbor_peek(&c), CBOR_END);
	cbor_close(&c);
	cbor_fail(&c, ERR_DENIED);
	assert_int_equal(cbor_finish(&c), ERR_TOO_LARGE);
}

static void level_must_be_read_to_its_end(void **state)
{
	struct cbor_cursor c;

	(void)state;
	cbor_init(&c, "\x82\x01\x02", 3);
	assert_int_equal(cbor_open_array_max(&c, 5), 2);
	assert_int_equal(cbor_uint(&c, 9), 1);
	cbor_close(&c);
	assert_int_equal(cbor_finish(&c), ERR_MALFORMED);

	cbor_init(&c, "\x81\x01\x02", 3);
	cbor_open_array(&c, 1);
	assert_int_equal(cbor_uint(&c, 9), 1);
	assert_int_equal(cbor_peek(&c), CBOR_END); /* the 2 is not of this array */
	assert_int_equal(cbor_uint(&c, 9), 0);
	assert_int_equal(cbor_finish(&c), ERR_MALFORMED);

	cbor_init(&c, "\x82\x01\x02", 3);
	cbor_open_array(&c, 3);
	assert_int_equal(c.rc, ERR_MALFORMED);
	cbor_init(&c, "\x82\x01\x02", 3);
	cbor_open_array_max(&c, 1);
	assert_int_equal(c.rc, ERR_TOO_LARGE);
	cbor_init(&c, "\x01", 1);
	cbor_close(&c);
	assert_int_equal(c.rc, ERR_MALFORMED);
}

static void keys_are_matched_whole(void **state)
{
	struct cbor_cursor c;

	(void)state;
	cbor_init(&c, "\xa2\x61\x61\x01\x62\x61\x62\x02", 8);
	assert_int_equal(cbor_open_map_max(&c, 8), 2);
	assert_false(cbor_key(&c, "ab"));
	assert_false(cbor_key(&c, ""));
	assert_true(cbor_key(&c, "a"));
	assert_int_equal(cbor_uint(&c, 1), 1);
	cbor_expect_text(&c, "ab");
	assert_int_equal(cbor_uint(&c, 2), 2);
	assert_false(cbor_key(&c, "a"));
	cbor_close(&c);
	assert_int_equal(cbor_finish(&c), 0);
}

static void float_claim(double v, const char *hex)
{
	AUTOBUF b = BUF_INIT;
	char text[32];
	struct cbor_cursor c;
	double back;

	cbor_put_float(&b, v);
	assert_string_equal(text_hex(b.data, b.len, text), hex);
	cbor_init(&c, b.data, b.len);
	back = cbor_float(&c);
	assert_int_equal(cbor_finish(&c), 0);
	if (v == v)
		assert_memory_equal(&back, &v, sizeof(v)); /* -0 too */
	else
		assert_true(back != back);
}

static void floats_take_the_fewest_bytes_that_keep_them(void **state)
{
	(void)state;
	float_claim(0.0, "f90000");
	float_claim(-0.0, "f98000");
	float_claim(1.0, "f93c00");
	float_claim(1.5, "f93e00");
	float_claim(65504.0, "f97bff");
	float_claim(65505.0, "fa477fe100");
	float_claim(65520.0, "fa477ff000"); /* would round to infinity */
	float_claim(0x1p-24, "f90001");     /* the smallest half */
	float_claim(0x3ffp-24, "f903ff");   /* the largest subnormal half */
	float_claim(0x1p-14, "f90400");     /* the smallest normal half */
	float_claim(0x1p-25, "fa33000000");
	float_claim(0x1.8p-24, "fa33c00000"); /* between two halves */
	float_claim(-0x1p-24, "f98001");
	float_claim(0x1.004p0, "f93c01");
	float_claim(0x1.002p0, "fa3f801000");
	float_claim(0x1p-149, "fa00000001"); /* the smallest single */
	float_claim(0x1p-150, "fb3690000000000000");
	float_claim(0x1.fffffep127, "fa7f7fffff");
	float_claim(1e300, "fb7e37e43c8800759c");
	float_claim(1.1, "fb3ff199999999999a");
	float_claim(__builtin_inf(), "f97c00");
	float_claim(-__builtin_inf(), "f9fc00");
	float_claim(__builtin_nan(""), "f97e00");
	float_claim(-__builtin_nan("0x123"), "f97e00");
}

static void every_half_reads_back_as_itself(void **state)
{
	(void)state;
	for (unsigned h = 0; h < 0x10000; h++) {
		uint8_t in[3] = { 0xf9, (uint8_t)(h >> 8), (uint8_t)h };
		bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
		AUTOBUF b = BUF_INIT;
		struct cbor_cursor c;
		double v;

		cbor_init(&c, in, 3);
		v = cbor_float(&c);
		if (nan && h != 0x7e00) {
			assert_int_equal(c.rc, ERR_MALFORMED);
			continue;
		}
		assert_int_equal(cbor_finish(&c), 0);
		cbor_put_float(&b, v);
		assert_int_equal(b.len, 3);
		assert_memory_equal(b.data, in, 3);
	}
}

static void writer_takes_the_shortest_heads(void **state)
{
	static const struct {
		int64_t v;
		const char *hex;
	} ints[] = { { 0, "00" }, { 23, "17" }, { 24, "1818" }, { 255, "18ff" },
		{ 256, "190100" }, { 65535, "19ffff" }, { 65536, "1a00010000" },
		{ 4294967295, "1affffffff" }, { 4294967296, "1b0000000100000000" },
		{ -1, "20" }, { -24, "37" }, { -25, "3818" },
		{ INT64_MIN, "3b7fffffffffffffff" }, { INT64_MAX, "1b7fffffffffffffff" } };
	char text[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ints); i++) {
		AUTOBUF b = BUF_INIT;
		struct cbor_cursor c;

		cbor_put_int(&b, ints[i].v);
		assert_string_equal(text_hex(b.data, b.len, text), ints[i].hex);
		cbor_init(&c, b.data, b.len);
		assert_true(cbor_int(&c) == ints[i].v);
		assert_int_equal(cbor_finish(&c), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_deterministic_is_refused),
		cmocka_unit_test(map_keys_ascend_bytewise_and_are_no_containers),
		cmocka_unit_test(lengths_are_checked_against_what_is_left),
		cmocka_unit_test(nesting_ends_at_thirty_two),
		cmocka_unit_test(only_state_has_tags_and_only_two),
		cmocka_unit_test(integers_of_values_fit_int64),
		cmocka_unit_test(first_failure_stays_and_reads_give_nothing),
		cmocka_unit_test(level_must_be_read_to_its_end),
		cmocka_unit_test(keys_are_matched_whole),
		cmocka_unit_test(floats_take_the_fewest_bytes_that_keep_them),
		cmocka_unit_test(every_half_reads_back_as_itself),
		cmocka_unit_test(writer_takes_the_shortest_heads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
