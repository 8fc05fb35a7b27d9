/*
 * Every vector of RFC 8949, appendix A (tests/data/rfc8949-appendix-a.json) round-trips byte
 * for byte or is refused for the reason listed here.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <jansson.h>
#include <string.h>

#include <tos/value.h>

#include "base/mem.h"
#include "base/text.h"

#define BIGNUM     "bignum: tags 2 and 3 are not used"
#define RANGE      "an integer outside int64"
#define TAG        "only tags 28 and 29, and only in carrier state"
#define INDEFINITE "indefinite length"
#define SHORTEST   "a float that is not in its shortest form"
#define SIMPLE     "undefined or an unassigned simple value"

static const struct {
	const char *hex, *reason;
} refused[] = {
	{ "1bffffffffffffffff", RANGE },
	{ "c249010000000000000000", BIGNUM },
	{ "3bffffffffffffffff", RANGE },
	{ "c349010000000000000000", BIGNUM },
	{ "fa7f800000", SHORTEST },
	{ "fa7fc00000", SHORTEST },
	{ "faff800000", SHORTEST },
	{ "fb7ff0000000000000", SHORTEST },
	{ "fb7ff8000000000000", SHORTEST },
	{ "fbfff0000000000000", SHORTEST },
	{ "f7", SIMPLE },
	{ "f0", SIMPLE },
	{ "f818", SIMPLE },
	{ "f8ff", SIMPLE },
	{ "c074323031332d30332d32315432303a30343a30305a", TAG },
	{ "c11a514b67b0", TAG },
	{ "c1fb41d452d9ec200000", TAG },
	{ "d74401020304", TAG },
	{ "d818456449455446", TAG },
	{ "d82076687474703a2f2f7777772e6578616d706c652e636f6d", TAG },
	{ "5f42010243030405ff", INDEFINITE },
	{ "7f657374726561646d696e67ff", INDEFINITE },
	{ "9fff", INDEFINITE },
	{ "9f018202039f0405ffff", INDEFINITE },
	{ "9f01820203820405ff", INDEFINITE },
	{ "83018202039f0405ff", INDEFINITE },
	{ "83019f0203ff820405", INDEFINITE },
	{ "9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", INDEFINITE },
	{ "bf61610161629f0203ffff", INDEFINITE },
	{ "826161bf61626163ff", INDEFINITE },
	{ "bf6346756ef563416d7421ff", INDEFINITE },
};

static const char *reason_for(const char *hex)
{
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		if (strcmp(refused[i].hex, hex) == 0)
			return refused[i].reason;
	return NULL;
}

static void vector_claim(const char *hex, size_t *n_refused)
{
	size_t n = strlen(hex) / 2, len = 0;
	AUTOFREE uint8_t *bytes = mem_zero(n);
	AUTOFREE uint8_t *again = NULL;
	struct tos_value *v = NULL;

	must(text_unhex(hex, 2 * n, bytes, n) == 0);
	if (tos_decode(bytes, n, 0, &v) < 0) {
		if (!reason_for(hex))
			fail_msg("%s was refused", hex);
		(*n_refused)++;
		return;
	}
	if (reason_for(hex))
		fail_msg("%s was accepted: %s", hex, reason_for(hex));
	assert_int_equal(tos_encode(v, &again, &len), 0);
	assert_int_equal(len, n);
	assert_memory_equal(again, bytes, n);
	tos_value_free(v);
}

static void vectors_round_trip_or_are_refused_for_a_listed_reason(void **state)
{
	json_error_t error;
	json_t *all = json_load_file(TESTS_DATA "/rfc8949-appendix-a.json", 0, &error), *one;
	size_t i, n_refused = 0;

	(void)state;
	if (!all) /* 18446744073709551616 does not fit jansson's integers */
		all = json_load_file(
			TESTS_DATA "/rfc8949-appendix-a.json", JSON_DECODE_INT_AS_REAL, &error);
	if (!all)
		fail_msg("%s", error.text);
	assert_int_equal(json_array_size(all), 82);
	json_array_foreach(all, i, one)
		vector_claim(json_string_value(json_object_get(one, "hex")), &n_refused);
	assert_int_equal(n_refused, ARRAY_LEN(refused));
	json_decref(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors_round_trip_or_are_refused_for_a_listed_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
