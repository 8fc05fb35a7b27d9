/* Signed objects: src/seal/{cose_sign,sign}.c. */
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

static void sign_text(
	const struct signer *s, const char *kind, const char *text, struct buf *out)
{
	struct errmsg em = { "" };
	int rc = cose_sign(s, kind, slice_text(text), out, &em);

	assert_string_equal(em.text, "");
	assert_int_equal(rc, 0);
}

static void each_kind_signs_and_verifies(void **state)
{
	static const char *const kinds[] = { "ticket", "manifest", "hop", "act", "request" };
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTO(signer) host = signer_new_enrolled(&d, "host1");

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(kinds); i++) {
		const struct signer *s = i % 2 ? alice : host;
		const char *kind = kinds[i / 2];
		AUTOBUF b = BUF_INIT;
		struct cert_info who;
		struct cose c;

		sign_text(s, kind, "what is signed", &b);
		assert_int_equal(cose_verify(&d.trust, kind, slice_buf(&b), &c, &who, NULL), 0);
		assert_string_equal(who.name, s->info.name);
		assert_int_equal(who.kind, s->info.kind);
		assert_int_equal(c.payload.n, 14);
		assert_memory_equal(c.payload.p, "what is signed", 14);
		assert_int_equal(c.n_chain, s->n_chain);
	}
}

static void any_flipped_bit_breaks_a_signed_object(void **state)
{
	AUTO(signer) host = signer_new_enrolled(&d, "host1");
	AUTOBUF b = BUF_INIT;
	struct cert_info who;
	struct cose c;

	(void)state;
	sign_text(host, "hop", "from host1 to host2", &b);
	/* twice: the second time the good signature is remembered, and must not help the bad */
	for (int round = 0; round < 2; round++) {
		for (size_t bit = 0; bit < b.len * 8; bit += round ? 7 : 1) {
			b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_true(cose_verify(&d.trust, "hop", slice_buf(&b), &c, &who,
					    NULL) < 0);
			b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		assert_int_equal(
			cose_verify(&d.trust, "hop", slice_buf(&b), &c, &who, NULL), 0);
	}
}

static void any_other_byte_breaks_a_signed_object(void **state)
{
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTOBUF b = BUF_INIT;
	struct cert_info who;
	struct cose c;

	(void)state;
	sign_text(alice, "act", "kill", &b);
	for (size_t at = 0; at < b.len; at++) {
		uint8_t was = b.data[at];

		b.data[at] = (uint8_t)~was;
		assert_true(cose_verify(&d.trust, "act", slice_buf(&b), &c, &who, NULL) < 0);
		b.data[at] = was;
	}
}

static void truncated_object_is_refused(void **state)
{
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTOBUF b = BUF_INIT;
	struct cert_info who;
	struct cose c;

	(void)state;
	sign_text(alice, "act", "kill", &b);
	for (size_t n = 0; n < b.len; n++)
		assert_int_equal(cose_verify(&d.trust, "act", (struct slice){ b.data, n }, &c,
					 &who, NULL),
			ERR_MALFORMED);
	buf_add_u8(&b, 0);
	assert_int_equal(
		cose_verify(&d.trust, "act", slice_buf(&b), &c, &who, NULL), ERR_MALFORMED);
}

static void another_kind_is_refused(void **state)
{
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTOBUF b = BUF_INIT;
	struct errmsg em = { "" };
	struct cert_info who;
	struct cose c;

	(void)state;
	sign_text(alice, "act", "kill", &b);
	assert_int_equal(
		cose_verify(&d.trust, "ticket", slice_buf(&b), &c, &who, &em), ERR_MALFORMED);
	assert_non_null(strstr(em.text, "act"));
	assert_int_equal(
		cose_verify(&d.trust, "ac", slice_buf(&b), &c, &who, NULL), ERR_MALFORMED);
	assert_int_equal(
		cose_verify(&d.trust, "acts", slice_buf(&b), &c, &who, NULL), ERR_MALFORMED);
}

static void signature_of_another_key_is_refused(void **state)
{
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTO(signer) bob = signer_new(&d, CERT_PRINCIPAL, "bob", ROLE_OWNER, -DAY, DAY);
	AUTOBUF a = BUF_INIT;
	AUTOBUF b = BUF_INIT;
	AUTOBUF mixed = BUF_INIT;
	struct cert_info who;
	struct cose ca, cb, c;

	(void)state;
	sign_text(alice, "act", "kill", &a);
	sign_text(bob, "act", "kill", &b);
	assert_int_equal(cose_verify(&d.trust, "act", slice_buf(&a), &ca, NULL, NULL), 0);
	assert_int_equal(cose_verify(&d.trust, "act", slice_buf(&b), &cb, NULL, NULL), 0);
	cose_encode(&mixed, ca.protected_bytes, ca.payload, cb.signature.p);
	assert_int_equal(
		cose_verify(&d.trust, "act", slice_buf(&mixed), &c, &who, NULL), ERR_SIGNATURE);
}

static void signer_cannot_use_anothers_certificate(void **state)
{
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTO(key) stolen_name = key_new();
	AUTOBUF b = BUF_INIT;
	struct signer mallory = *alice;

	(void)state;
	mallory.key = stolen_name;
	assert_int_equal(cose_sign(&mallory, "act", slice_text("kill"), &b, NULL), ERR_USAGE);
	/* and one who does not ask first gets no further */
	key_public(stolen_name, mallory.info.public_key);
	sign_text(&mallory, "act", "kill", &b);
	struct cert_info who;
	struct cose c;

	assert_int_equal(
		cose_verify(&d.trust, "act", slice_buf(&b), &c, &who, NULL), ERR_SIGNATURE);
}

static void chain_is_judged_even_if_the_signature_is_known(void **state)
{
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTO(signer)
	later = signer_new(&d, CERT_PRINCIPAL, "later", ROLE_OWNER, 2 * DAY, 3 * DAY);
	AUTO(revocation) r = NULL;
	AUTOBUF b = BUF_INIT;
	AUTOBUF l = BUF_INIT;
	AUTOBUF list = BUF_INIT;
	struct slice serial = { alice->info.serial, alice->info.serial_len };
	struct trust t = d.trust;
	struct cert_info who;
	struct cose c;

	(void)state;
	sign_text(alice, "act", "kill", &b);
	sign_text(later, "act", "kill", &l);
	assert_int_equal(cose_verify(&t, "act", slice_buf(&b), &c, &who, NULL), 0);
	assert_int_equal(cose_verify(&t, "act", slice_buf(&l), &c, &who, NULL), ERR_NOT_YET);
	t.now_ms = d.now_ms + 2 * DAY;
	assert_int_equal(cose_verify(&t, "act", slice_buf(&b), &c, &who, NULL), ERR_EXPIRED);
	assert_int_equal(cose_verify(&t, "act", slice_buf(&l), &c, &who, NULL), 0);
	t = d.trust;
	assert_int_equal(revocation_make(d.root_key, slice_buf(&d.root), 1, d.now_ms, &serial,
				 1, &list, NULL),
		0);
	assert_int_equal(revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL), 0);
	t.revocation = r;
	assert_int_equal(cose_verify(&t, "act", slice_buf(&b), &c, &who, NULL), ERR_REVOKED);
}

static void foreign_domain_is_refused(void **state)
{
	AUTOBUF b = BUF_INIT;
	struct domain foreign;
	struct cert_info who;
	struct cose c;

	(void)state;
	domain_init(&foreign);
	AUTO(signer) s = signer_new(&foreign, CERT_PRINCIPAL, "alice", ROLE_ADMIN, -DAY, DAY);

	sign_text(s, "act", "kill", &b);
	assert_int_equal(
		cose_verify(&d.trust, "act", slice_buf(&b), &c, &who, NULL), ERR_UNTRUSTED);
	domain_fini(&foreign);
}

/* The root signs certificates and the revocation list, never acts. */
static void root_signs_no_acts(void **state)
{
	AUTOBUF b = BUF_INIT;
	struct signer s = { .key = d.root_key, .n_chain = 1 };
	struct cert_info who;
	struct cose c;

	(void)state;
	s.chain[0] = d.root;
	assert_int_equal(cert_info(slice_buf(&d.root), &s.info, NULL), 0);
	sign_text(&s, "act", "kill", &b);
	assert_int_equal(
		cose_verify(&d.trust, "act", slice_buf(&b), &c, &who, NULL), ERR_UNTRUSTED);
}

static void identity_covers_header_and_payload(void **state)
{
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTOBUF a = BUF_INIT;
	AUTOBUF b = BUF_INIT;
	AUTOBUF by_hand = BUF_INIT;
	uint8_t ia[DIGEST_BYTES], ib[DIGEST_BYTES], want[DIGEST_BYTES];
	struct cose ca, cb;

	(void)state;
	sign_text(alice, "ticket", "one", &a);
	sign_text(alice, "ticket", "two", &b);
	assert_int_equal(cose_decode(slice_buf(&a), &ca, NULL), 0);
	assert_int_equal(cose_decode(slice_buf(&b), &cb, NULL), 0);
	cose_id(&ca, ia);
	cose_id(&cb, ib);
	assert_memory_not_equal(ia, ib, DIGEST_BYTES);
	cbor_put_array(&by_hand, 2);
	cbor_put_bytes(&by_hand, ca.protected_bytes.p, ca.protected_bytes.n);
	cbor_put_bytes(&by_hand, ca.payload.p, ca.payload.n);
	digest_bytes(by_hand.data, by_hand.len, want);
	assert_memory_equal(ia, want, DIGEST_BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_signs_and_verifies),
		cmocka_unit_test(any_flipped_bit_breaks_a_signed_object),
		cmocka_unit_test(any_other_byte_breaks_a_signed_object),
		cmocka_unit_test(truncated_object_is_refused),
		cmocka_unit_test(another_kind_is_refused),
		cmocka_unit_test(signature_of_another_key_is_refused),
		cmocka_unit_test(signer_cannot_use_anothers_certificate),
		cmocka_unit_test(chain_is_judged_even_if_the_signature_is_known),
		cmocka_unit_test(foreign_domain_is_refused),
		cmocka_unit_test(root_signs_no_acts),
		cmocka_unit_test(identity_covers_header_and_payload),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
