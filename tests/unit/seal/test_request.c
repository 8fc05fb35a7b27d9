/* Signing requests: src/seal/request.c. */
#include "domain.h"

static struct domain d;

static int setup(void **state)
{
	(void)state;
	domain_init(&d);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	domain_fini(&d);
	return 0;
}

static void request_says_who_asks_for_what(void **state)
{
	AUTO(key) k = key_new();
	AUTOBUF der = BUF_INIT;
	struct cert_request r;
	uint8_t public_key[32];

	(void)state;
	key_public(k, public_key);
	assert_int_equal(request_make(k, "olga", ROLE_OFFICER | ROLE_OWNER, &der, NULL), 0);
	assert_int_equal(request_parse(slice_buf(&der), &r, NULL), 0);
	assert_string_equal(r.name, "olga");
	assert_int_equal(r.roles, ROLE_OFFICER | ROLE_OWNER);
	assert_memory_equal(r.public_key, public_key, 32);
}

static void what_cannot_be_signed_is_not_asked_for(void **state)
{
	AUTO(key) k = key_new();
	AUTOBUF der = BUF_INIT;

	(void)state;
	assert_true(request_make(k, "olga", 0, &der, NULL) < 0);
	assert_true(request_make(k, "ol ga", ROLE_OFFICER, &der, NULL) < 0);
	assert_true(request_make(k, "", ROLE_OFFICER, &der, NULL) < 0);
	assert_int_equal(der.len, 0);
}

static void no_byte_of_a_request_can_be_another(void **state)
{
	AUTO(key) k = key_new();
	AUTOBUF der = BUF_INIT;
	struct cert_request r;

	(void)state;
	assert_int_equal(request_make(k, "olga", ROLE_OFFICER, &der, NULL), 0);
	for (size_t i = 0; i < der.len; i++)
		for (unsigned bit = 1; bit < 256; bit <<= 1) {
			der.data[i] ^= (uint8_t)bit;
			assert_true(request_parse(slice_buf(&der), &r, NULL) < 0);
			der.data[i] ^= (uint8_t)bit;
		}
	for (size_t n = 0; n < der.len; n++)
		assert_true(request_parse((struct slice){ der.data, n }, &r, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_says_who_asks_for_what),
		cmocka_unit_test(what_cannot_be_signed_is_not_asked_for),
		cmocka_unit_test(no_byte_of_a_request_can_be_another),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
