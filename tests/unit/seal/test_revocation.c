/* The revocation list: src/seal/revocation.c. */
#include "domain.h"

#include "wire/cbor.h"

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

static int make(const struct slice *serials, size_t n, struct buf *out)
{
	return revocation_make(
		d.root_key, slice_buf(&d.root), 7, d.now_ms, serials, n, out, NULL);
}

static void list_says_what_was_put_in(void **state)
{
	struct slice serials[] = { slice_text("zz"), slice_text("b"), slice_text("aaa"),
		slice_text("b") };
	AUTO(revocation) r = NULL;
	AUTOBUF list = BUF_INIT;

	(void)state;
	assert_int_equal(make(serials, 4, &list), 0);
	assert_int_equal(revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL), 0);
	assert_int_equal(revocation_number(r), 7);
	assert_int_equal(revocation_issued_ms(r), d.now_ms);
	assert_int_equal(revocation_count(r), 3);
	assert_int_equal(revocation_serial(r, 0).n, 1);
	assert_int_equal(revocation_serial(r, 2).n, 3);
	for (size_t i = 0; i < 4; i++)
		assert_true(revocation_has(r, serials[i].p, serials[i].n));
	assert_false(revocation_has(r, (const uint8_t *)"z", 1));
	assert_false(revocation_has(r, (const uint8_t *)"zzz", 3));
	assert_false(revocation_has(r, (const uint8_t *)"", 0));
}

static void empty_list_is_a_list(void **state)
{
	AUTO(revocation) r = NULL;
	AUTOBUF list = BUF_INIT;

	(void)state;
	assert_int_equal(make(NULL, 0, &list), 0);
	assert_int_equal(revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL), 0);
	assert_int_equal(revocation_count(r), 0);
	assert_false(revocation_has(r, (const uint8_t *)"a", 1));
}

static void any_flipped_bit_breaks_the_list(void **state)
{
	struct slice serials[] = { slice_text("a"), slice_text("bb") };
	AUTOBUF list = BUF_INIT;

	(void)state;
	assert_int_equal(make(serials, 2, &list), 0);
	for (size_t bit = 0; bit < list.len * 8; bit++) {
		AUTO(revocation) r = NULL;

		list.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_true(
			revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL) < 0);
		assert_null(r);
		list.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void only_the_own_root_signs_it(void **state)
{
	AUTO(signer) admin = signer_new(&d, CERT_PRINCIPAL, "admin", ROLE_ADMIN, -DAY, DAY);
	AUTO(revocation) r = NULL;
	AUTOBUF by_admin = BUF_INIT;
	AUTOBUF by_other = BUF_INIT;
	AUTOBUF payload = BUF_INIT;
	struct domain foreign;

	(void)state;
	domain_init(&foreign);
	assert_int_equal(revocation_make(foreign.root_key, slice_buf(&foreign.root), 1,
				 d.now_ms, NULL, 0, &by_other, NULL),
		0);
	assert_int_equal(revocation_decode(slice_buf(&by_other), slice_buf(&d.root), &r, NULL),
		ERR_UNTRUSTED);
	cbor_put_map(&payload, 0);
	assert_int_equal(
		cose_sign(admin, "revocation", slice_buf(&payload), &by_admin, NULL), 0);
	assert_int_equal(revocation_decode(slice_buf(&by_admin), slice_buf(&d.root), &r, NULL),
		ERR_UNTRUSTED);
	assert_int_equal(revocation_make(admin->key, slice_buf(&admin->chain[0]), 1, d.now_ms,
				 NULL, 0, &by_admin, NULL),
		ERR_USAGE);
	assert_int_equal(revocation_make(admin->key, slice_buf(&d.root), 1, d.now_ms, NULL, 0,
				 &by_admin, NULL),
		ERR_USAGE);
	assert_null(r);
	domain_fini(&foreign);
}

/* Signed rightly by the root, so that what is refused is the content. */
static int decode_payload(const struct buf *payload, const char *kind)
{
	AUTO(revocation) r = NULL;
	AUTOBUF list = BUF_INIT;
	struct signer s = { .key = d.root_key, .n_chain = 1 };

	s.chain[0] = d.root;
	assert_int_equal(cert_info(slice_buf(&d.root), &s.info, NULL), 0);
	assert_int_equal(cose_sign(&s, kind, slice_buf(payload), &list, NULL), 0);
	return revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL);
}

static void put_list(struct buf *b, const char *first, const char *second)
{
	buf_clear(b);
	cbor_put_map(b, 3);
	cbor_put_text(b, "issued");
	cbor_put_uint(b, 1);
	cbor_put_text(b, "number");
	cbor_put_uint(b, 1);
	cbor_put_text(b, "revoked");
	cbor_put_array(b, 2);
	cbor_put_bytes(b, first, strlen(first));
	cbor_put_bytes(b, second, strlen(second));
}

static void content_is_strict(void **state)
{
	AUTOBUF b = BUF_INIT;

	(void)state;
	put_list(&b, "a", "b");
	assert_int_equal(decode_payload(&b, "revocation"), 0);
	assert_int_equal(decode_payload(&b, "act"), ERR_MALFORMED);
	put_list(&b, "b", "a");
	assert_int_equal(decode_payload(&b, "revocation"), ERR_MALFORMED);
	put_list(&b, "a", "a");
	assert_int_equal(decode_payload(&b, "revocation"), ERR_MALFORMED);
	put_list(&b, "", "a");
	assert_true(decode_payload(&b, "revocation") < 0);
	put_list(&b, "a", "123456789012345678901");
	assert_true(decode_payload(&b, "revocation") < 0);
	buf_clear(&b);
	cbor_put_map(&b, 0);
	assert_int_equal(decode_payload(&b, "revocation"), ERR_MALFORMED);
}

static void bad_serials_are_not_put_in(void **state)
{
	struct slice none = { NULL, 0 }, much = slice_text("123456789012345678901");
	AUTOBUF list = BUF_INIT;

	(void)state;
	assert_int_equal(make(&none, 1, &list), ERR_USAGE);
	assert_int_equal(make(&much, 1, &list), ERR_USAGE);
	assert_int_equal(list.len, 0);
}

static void large_list_is_searched_and_bounded(void **state)
{
	enum { MANY = 32768 };
	static uint8_t bytes[MANY][16];
	static struct slice serials[MANY + 1];
	AUTO(revocation) r = NULL;
	AUTOBUF list = BUF_INIT;

	(void)state;
	random_bytes(bytes, sizeof(bytes));
	for (size_t i = 0; i <= MANY; i++)
		serials[i] = (struct slice){ bytes[i % MANY], 16 };
	assert_int_equal(make(serials, MANY + 1, &list), ERR_TOO_LARGE);
	assert_int_equal(make(serials, MANY, &list), 0);
	assert_true(list.len < FRAME_BYTES_MAX);
	assert_int_equal(revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL), 0);
	assert_int_equal(revocation_count(r), MANY);
	for (size_t i = 0; i < MANY; i++)
		assert_true(revocation_has(r, bytes[i], 16));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(list_says_what_was_put_in),
		cmocka_unit_test(empty_list_is_a_list),
		cmocka_unit_test(any_flipped_bit_breaks_the_list),
		cmocka_unit_test(only_the_own_root_signs_it),
		cmocka_unit_test(content_is_strict),
		cmocka_unit_test(bad_serials_are_not_put_in),
		cmocka_unit_test(large_list_is_searched_and_bounded),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
