/* The structure of COSE_Sign1: src/wire/cose.c. Signatures are src/seal's. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/mem.h"
#include "samples.h"
#include "wire/cose.h"

static const uint8_t signature[64];

static struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

/* Encode with this protected header; the decoder's verdict. */
static int verdict(const void *header, size_t n)
{
	AUTOBUF b = BUF_INIT;
	struct cose c;

	cose_encode(&b, (struct slice){ header, n }, text("payload"), signature);
	return cose_decode((struct slice){ b.data, b.len }, &c, NULL);
}

static void taken_apart_it_has_the_parts_it_was_made_of(void **state)
{
	AUTOBUF b = BUF_INIT;
	struct cose c;

	(void)state;
	sample_make("cose-chain", &b);
	assert_int_equal(cose_decode((struct slice){ b.data, b.len }, &c, NULL), 0);
	assert_int_equal(c.type.n, 6);
	assert_memory_equal(c.type.p, "ticket", 6);
	assert_int_equal(c.n_chain, 2);
	assert_memory_equal(c.chain[0].p, "leaf certificate", c.chain[0].n);
	assert_memory_equal(c.chain[1].p, "registrar certificate", c.chain[1].n);
	assert_int_equal(c.signature.n, 64);
}

static void header_is_exact(void **state)
{
#define HEAD                                                                                   \
	"\xa3\x01\x27\x10\x71"                                                                 \
	"application/tos-x"                                                                    \
	"\x18\x21"
#define TRY(s) verdict(s, sizeof(s) - 1)
	(void)state;
	assert_int_equal(TRY(HEAD "\x41\x00"), 0);
	assert_int_equal(TRY(HEAD "\x82\x41\x00\x41\x01"), 0);
	assert_int_equal(TRY(HEAD "\x81\x41\x00"), ERR_MALFORMED); /* one is no array */
	assert_int_equal(TRY(HEAD "\x80"), ERR_MALFORMED);
	assert_int_equal(TRY(HEAD "\x40"), ERR_MALFORMED);
	assert_int_equal(TRY(HEAD "\x84\x41\x00\x41\x01\x41\x02\x41\x03"), ERR_TOO_LARGE);
	assert_int_equal(TRY(HEAD "\x41\x00\x00"), ERR_MALFORMED);
	assert_int_equal(TRY("\xa3\x01\x26\x10\x71"
			     "application/tos-x"
			     "\x18\x21\x41\x00"),
		ERR_MALFORMED); /* ES256 */
	assert_int_equal(TRY("\xa3\x01\x27\x10\x71"
			     "application/sos-x"
			     "\x18\x21\x41\x00"),
		ERR_MALFORMED);
	assert_int_equal(TRY("\xa3\x01\x27\x10\x70"
			     "application/tos-"
			     "\x18\x21\x41\x00"),
		ERR_MALFORMED);
	assert_int_equal(TRY("\xa2\x01\x27\x10\x71"
			     "application/tos-x"),
		ERR_MALFORMED);
	/* a critical header that nobody here knows */
	assert_int_equal(TRY("\xa4\x01\x27\x02\x81\x03\x10\x71"
			     "application/tos-x"
			     "\x18\x21\x41\x00"),
		ERR_TOO_LARGE);
	assert_int_equal(TRY("\xa0"), ERR_MALFORMED);
#undef TRY
#undef HEAD
}

static void outside_is_exact(void **state)
{
	AUTOBUF good = BUF_INIT;
	struct cose c;

	(void)state;
	sample_make("cose", &good);
	struct slice s = { good.data, good.len };

	assert_int_equal(cose_decode(s, &c, NULL), 0);
	good.data[0] = 0xd1; /* another tag */
	assert_int_equal(cose_decode(s, &c, NULL), ERR_MALFORMED);
	good.data[0] = 0xd2;
	s.p++; /* no tag */
	s.n--;
	assert_int_equal(cose_decode(s, &c, NULL), ERR_MALFORMED);
	assert_int_equal(cose_decode((struct slice){ NULL, 0 }, &c, NULL), ERR_MALFORMED);
}

static void kinds_and_chains_beyond_the_bounds_are_not_made(void **state)
{
	struct slice chain[COSE_CHAIN_MAX + 1] = { { NULL, 0 } };
	AUTOBUF none = BUF_INIT;
	AUTOBUF many = BUF_INIT;
	AUTOBUF name = BUF_INIT;

	(void)state;
	cose_protected(&none, "ticket", chain, 0);
	assert_true(none.failed);
	cose_protected(&many, "ticket", chain, COSE_CHAIN_MAX + 1);
	assert_true(many.failed);
	cose_protected(&name, "a-kind-with-a-name-that-is-far-too-long", chain, 1);
	assert_true(name.failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taken_apart_it_has_the_parts_it_was_made_of),
		cmocka_unit_test(header_is_exact),
		cmocka_unit_test(outside_is_exact),
		cmocka_unit_test(kinds_and_chains_beyond_the_bounds_are_not_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
