/* Certificates and trust: src/seal/{cert,trust}.c. */
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

static int verify_signer(
	const struct trust *t, const struct signer *s, struct cert_info *out, struct errmsg *em)
{
	struct slice chain[COSE_CHAIN_MAX];

	for (size_t i = 0; i < s->n_chain; i++)
		chain[i] = slice_buf(&s->chain[i]);
	return trust_verify(t, chain, s->n_chain, out, em);
}

static void certificate_says_what_was_asked_for(void **state)
{
	AUTO(signer)
	s = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_ADMIN | ROLE_AUTHOR, -DAY, DAY);
	uint8_t public_key[32], digest[DIGEST_BYTES];
	struct cert_info i;

	(void)state;
	assert_int_equal(cert_info(slice_buf(&s->chain[0]), &i, NULL), 0);
	assert_int_equal(i.kind, CERT_PRINCIPAL);
	assert_string_equal(i.name, "alice");
	assert_int_equal(i.roles, ROLE_ADMIN | ROLE_AUTHOR);
	assert_int_equal(i.serial_len, 16);
	assert_int_equal(i.not_before_ms, (d.now_ms - DAY) / 1000 * 1000);
	assert_int_equal(i.not_after_ms, (d.now_ms + DAY) / 1000 * 1000);
	key_public(s->key, public_key);
	assert_memory_equal(i.public_key, public_key, 32);
	digest_bytes(s->chain[0].data, s->chain[0].len, digest);
	assert_memory_equal(i.fingerprint, digest, DIGEST_BYTES);
}

static void each_kind_is_recognised(void **state)
{
	AUTO(signer) kernel = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(key) k = key_new();
	AUTOBUF joiner = BUF_INIT;
	uint8_t public_key[32];
	struct cert_info i;

	(void)state;
	assert_int_equal(cert_info(slice_buf(&d.root), &i, NULL), 0);
	assert_int_equal(i.kind, CERT_ROOT);
	assert_int_equal(cert_info(slice_buf(&d.registrar), &i, NULL), 0);
	assert_int_equal(i.kind, CERT_REGISTRAR);
	assert_int_equal(kernel->info.kind, CERT_KERNEL);
	key_public(k, public_key);
	assert_int_equal(cert_issue(k, (struct slice){ NULL, 0 }, CERT_JOINER, "new host", 0,
				 public_key, 0, d.now_ms, &joiner, NULL),
		0);
	assert_int_equal(cert_info(slice_buf(&joiner), &i, NULL), 0);
	assert_int_equal(i.kind, CERT_JOINER);
	assert_string_equal(i.name, "new host");
}

static void validity_beyond_2049_is_kept(void **state)
{
	AUTO(signer) s = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, 36500 * DAY);

	(void)state;
	assert_int_equal(s->info.not_after_ms, (d.now_ms + 36500 * DAY) / 1000 * 1000);
}

static int try_issue(const struct key *by, const struct buf *by_der, enum cert_kind kind,
	const char *name, unsigned roles, int64_t to_ms)
{
	AUTO(key) k = key_new();
	AUTOBUF out = BUF_INIT;
	uint8_t public_key[32];
	int rc;

	key_public(k, public_key);
	rc = cert_issue(by, by_der ? slice_buf(by_der) : (struct slice){ NULL, 0 }, kind, name,
		roles, public_key, d.now_ms, to_ms, &out, NULL);
	assert_true(rc == 0 || out.len == 0);
	return rc;
}

static void issuers_issue_only_what_they_may(void **state)
{
	AUTO(signer) host = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	const struct key *root = d.root_key, *registrar = d.registrar_key;
	int64_t then = d.now_ms + DAY;

	(void)state;
	assert_int_equal(try_issue(registrar, &d.registrar, CERT_KERNEL, "a", 0, then), 0);
	assert_int_equal(
		try_issue(registrar, &d.registrar, CERT_PRINCIPAL, "a", ROLE_OWNER, then),
		ERR_DENIED);
	assert_int_equal(
		try_issue(registrar, &d.registrar, CERT_REGISTRAR, "a", 0, then), ERR_DENIED);
	assert_int_equal(
		try_issue(host->key, &host->chain[0], CERT_KERNEL, "a", 0, then), ERR_DENIED);
	assert_int_equal(try_issue(root, &d.root, CERT_ROOT, "a", 0, then), ERR_DENIED);
	assert_int_equal(try_issue(root, &d.root, CERT_JOINER, "a", 0, then), ERR_DENIED);
	/* another's key with the root's certificate, and nobody's certificate */
	assert_int_equal(try_issue(registrar, &d.root, CERT_KERNEL, "a", 0, then), ERR_USAGE);
	assert_int_equal(try_issue(root, NULL, CERT_KERNEL, "a", 0, then), ERR_USAGE);
	assert_int_equal(try_issue(root, NULL, CERT_ROOT, "a", 0, then), ERR_USAGE);
}

static int issue_only_to(enum cert_kind kind, const char *only, struct cert_info *info)
{
	AUTO(key) k = key_new();
	AUTOBUF out = BUF_INIT;
	uint8_t public_key[32];
	int rc;

	key_public(k, public_key);
	rc = cert_issue_only(d.root_key, slice_buf(&d.root), kind, "alice",
		kind == CERT_PRINCIPAL ? ROLE_OWNER : 0, only, public_key, d.now_ms,
		d.now_ms + DAY, &out, NULL);
	return rc ? rc : cert_info(slice_buf(&out), info, NULL);
}

static void a_principals_certificate_says_what_it_may_at_most(void **state)
{
	static const char *const texts[] = { "allow * *", "allow post,read *\ndeny post Echo",
		"allow run /usr/bin/*\nallow read owner:a@b\nallow kill own",
		"allow post a,b+c#d;e&f=g%h'i" };
	char most[RIGHTS_BYTES] = "allow post ", many[2 * RIGHTS_BYTES] = "";
	struct cert_info info;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		assert_int_equal(issue_only_to(CERT_PRINCIPAL, texts[i], &info), 0);
		assert_string_equal(info.only, texts[i]);
	}
	assert_int_equal(issue_only_to(CERT_PRINCIPAL, "", &info), 0);
	assert_string_equal(info.only, "");
	for (int i = 0; i < RIGHTS_MAX; i++)
		snprintf(many + strlen(many), sizeof(many) - strlen(many),
			"%sallow put %%%%%%%d", i ? "\n" : "", i);
	assert_int_equal(issue_only_to(CERT_PRINCIPAL, many, &info), 0);
	assert_string_equal(info.only, many);
	strcat(many, "\nallow put more");
	assert_int_equal(issue_only_to(CERT_PRINCIPAL, many, &info), ERR_USAGE);
	memset(most + strlen(most), '%', 500);
	assert_int_equal(issue_only_to(CERT_PRINCIPAL, most, &info), ERR_USAGE);
	assert_int_equal(issue_only_to(CERT_PRINCIPAL, "allow teleport *", &info), ERR_USAGE);
	assert_int_equal(issue_only_to(CERT_KERNEL, "allow * *", &info), ERR_USAGE);
}

static void bad_names_roles_and_times_are_not_issued(void **state)
{
	static const char *const names[] = { "", "Host0", "-a", "a b", "a,URI:tos:root", "a/b",
		"a\n", "h\xc3\xb6st", "a#1", ".a",
		"a123456789012345678901234567890123456789012345678901234567890123" };
	int64_t then = d.now_ms + DAY;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_int_equal(try_issue(d.root_key, &d.root, CERT_KERNEL, names[i], 0, then),
			ERR_NAME);
	assert_int_equal(try_issue(d.root_key, &d.root, CERT_PRINCIPAL, "x,URI:tos:root",
				 ROLE_OWNER, then),
		ERR_NAME);
	assert_int_equal(
		try_issue(d.root_key, &d.root, CERT_PRINCIPAL, "alice", 0, then), ERR_USAGE);
	assert_int_equal(
		try_issue(d.root_key, &d.root, CERT_PRINCIPAL, "alice", 16, then), ERR_USAGE);
	assert_int_equal(try_issue(d.root_key, &d.root, CERT_KERNEL, "host0", ROLE_ADMIN, then),
		ERR_USAGE);
	assert_int_equal(
		try_issue(d.root_key, &d.root, CERT_KERNEL, "host0", 0, d.now_ms - DAY),
		ERR_USAGE);
}

static void roles_have_words(void **state)
{
	(void)state;
	for (unsigned r = ROLE_ADMIN; r <= ROLE_OFFICER; r *= 2)
		assert_int_equal(role_parse(role_word((enum role)r)), r);
	assert_int_equal(role_parse("king"), 0);
	assert_int_equal(role_parse(""), 0);
}

static void chains_to_the_root_are_trusted(void **state)
{
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	AUTO(signer) direct = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	AUTO(signer) enrolled = signer_new_enrolled(&d, "host1");
	struct cert_info i;

	(void)state;
	assert_int_equal(verify_signer(&d.trust, alice, &i, NULL), 0);
	assert_string_equal(i.name, "alice");
	assert_int_equal(verify_signer(&d.trust, direct, &i, NULL), 0);
	assert_string_equal(i.name, "host0");
	assert_int_equal(verify_signer(&d.trust, enrolled, &i, NULL), 0);
	assert_string_equal(i.name, "host1");
	assert_int_equal(i.kind, CERT_KERNEL);
}

static void other_shapes_of_chains_are_refused(void **state)
{
	AUTO(signer) host = signer_new_enrolled(&d, "host1");
	AUTO(signer) alice = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	struct slice leaf = slice_buf(&host->chain[0]), reg = slice_buf(&d.registrar);
	struct slice root = slice_buf(&d.root), other = slice_buf(&alice->chain[0]);
	struct cert_info i;
	const struct trust *t = &d.trust;

	(void)state;
	assert_int_equal(trust_verify(t, NULL, 0, &i, NULL), ERR_MALFORMED);
	assert_int_equal(trust_verify(t, (struct slice[]){ leaf }, 1, &i, NULL), ERR_UNTRUSTED);
	assert_int_equal(trust_verify(t, (struct slice[]){ reg }, 1, &i, NULL), ERR_UNTRUSTED);
	assert_int_equal(trust_verify(t, (struct slice[]){ root }, 1, &i, NULL), ERR_UNTRUSTED);
	assert_int_equal(
		trust_verify(t, (struct slice[]){ reg, leaf }, 2, &i, NULL), ERR_UNTRUSTED);
	assert_int_equal(
		trust_verify(t, (struct slice[]){ other, reg }, 2, &i, NULL), ERR_UNTRUSTED);
	assert_int_equal(
		trust_verify(t, (struct slice[]){ leaf, root }, 2, &i, NULL), ERR_UNTRUSTED);
	assert_int_equal(trust_verify(t, (struct slice[]){ leaf, reg, root }, 3, &i, NULL),
		ERR_UNTRUSTED);
	assert_int_equal(
		trust_verify(t, (struct slice[]){ leaf, other }, 2, &i, NULL), ERR_UNTRUSTED);
}

static void another_domain_of_the_same_name_is_refused(void **state)
{
	struct domain foreign;
	struct errmsg em = { "" };
	struct cert_info i;

	(void)state;
	domain_init(&foreign);
	AUTO(signer) s = signer_new_enrolled(&foreign, "host1");
	AUTO(signer) direct = signer_new(&foreign, CERT_KERNEL, "host1", 0, -DAY, DAY);

	assert_int_equal(verify_signer(&d.trust, s, &i, &em), ERR_UNTRUSTED);
	assert_non_null(strstr(em.text, "not issued by this domain"));
	assert_int_equal(verify_signer(&d.trust, direct, &i, NULL), ERR_UNTRUSTED);
	assert_int_equal(verify_signer(&foreign.trust, s, &i, NULL), 0);
	domain_fini(&foreign);
}

static void self_signed_joiner_is_not_trusted(void **state)
{
	AUTO(key) k = key_new();
	AUTOBUF der = BUF_INIT;
	uint8_t public_key[32];
	struct cert_info i;

	(void)state;
	key_public(k, public_key);
	assert_int_equal(cert_issue(k, (struct slice){ NULL, 0 }, CERT_JOINER, "joiner", 0,
				 public_key, 0, d.now_ms + DAY, &der, NULL),
		0);
	struct slice s = slice_buf(&der);

	assert_int_equal(trust_verify(&d.trust, &s, 1, &i, NULL), ERR_UNTRUSTED);
}

static void validity_is_checked_with_skew(void **state)
{
	AUTO(signer) s = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, DAY);
	struct trust t = d.trust;
	struct errmsg em = { "" };
	struct cert_info i;

	(void)state;
	t.now_ms = s->info.not_after_ms + SKEW;
	assert_int_equal(verify_signer(&t, s, &i, NULL), 0);
	t.now_ms++;
	assert_int_equal(verify_signer(&t, s, &i, &em), ERR_EXPIRED);
	assert_non_null(strstr(em.text, "kernel host0 expired at"));
	t.now_ms = s->info.not_before_ms - SKEW;
	assert_int_equal(verify_signer(&t, s, &i, NULL), 0);
	t.now_ms--;
	assert_int_equal(verify_signer(&t, s, &i, &em), ERR_NOT_YET);
	assert_non_null(strstr(em.text, "check the clocks"));
}

static void each_link_must_be_in_time(void **state)
{
	AUTO(signer) s = signer_new(&d, CERT_KERNEL, "host0", 0, -DAY, 10000 * DAY);
	AUTO(signer) enrolled = signer_new_enrolled(&d, "host1");
	struct trust t = d.trust;
	struct errmsg em = { "" };
	struct cert_info i;

	(void)state;
	t.now_ms = d.now_ms + 4000 * DAY;
	assert_int_equal(verify_signer(&t, s, &i, &em), ERR_EXPIRED);
	assert_non_null(strstr(em.text, "root"));
	t.now_ms = d.now_ms + 400 * DAY;
	assert_int_equal(verify_signer(&t, enrolled, &i, NULL), ERR_EXPIRED);
}

static void each_link_must_not_be_revoked(void **state)
{
	AUTO(signer) s = signer_new_enrolled(&d, "host1");
	struct cert_info i, reg;
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(cert_info(slice_buf(&d.registrar), &reg, NULL), 0);
	struct slice serials[] = { { s->info.serial, s->info.serial_len },
		{ reg.serial, reg.serial_len } };

	for (size_t k = 0; k < 2; k++) {
		AUTO(revocation) r = NULL;
		AUTOBUF list = BUF_INIT;
		struct trust t = d.trust;

		assert_int_equal(revocation_make(d.root_key, slice_buf(&d.root), 1, d.now_ms,
					 &serials[k], 1, &list, NULL),
			0);
		assert_int_equal(
			revocation_decode(slice_buf(&list), slice_buf(&d.root), &r, NULL), 0);
		t.revocation = r;
		assert_int_equal(verify_signer(&t, s, &i, &em), ERR_REVOKED);
		assert_non_null(strstr(em.text, k ? "registrar" : "kernel host1"));
	}
}

static void any_flipped_bit_breaks_a_certificate(void **state)
{
	AUTO(signer) s = signer_new(&d, CERT_PRINCIPAL, "alice", ROLE_OWNER, -DAY, DAY);
	uint8_t copy[CERT_BYTES_MAX];
	struct slice der = { copy, s->chain[0].len };
	struct cert_info i;

	(void)state;
	memcpy(copy, s->chain[0].data, der.n);
	assert_int_equal(trust_verify(&d.trust, &der, 1, &i, NULL), 0);
	for (size_t bit = 0; bit < der.n * 8; bit++) {
		copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_true(trust_verify(&d.trust, &der, 1, &i, NULL) < 0);
		copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(trust_verify(&d.trust, &der, 1, &i, NULL), 0);
}

static void truncated_or_lengthened_certificates_are_malformed(void **state)
{
	uint8_t copy[CERT_BYTES_MAX + 1] = { 0 };
	struct cert_info i;

	(void)state;
	memcpy(copy, d.root.data, d.root.len);
	for (size_t n = 0; n < d.root.len; n++)
		assert_int_equal(cert_info((struct slice){ copy, n }, &i, NULL), ERR_MALFORMED);
	assert_int_equal(cert_info((struct slice){ copy, d.root.len }, &i, NULL), 0);
	assert_int_equal(
		cert_info((struct slice){ copy, d.root.len + 1 }, &i, NULL), ERR_MALFORMED);
	assert_int_equal(
		cert_info((struct slice){ copy, sizeof(copy) }, &i, NULL), ERR_MALFORMED);
}

/* BER: 30 80 ... 00 00 around the same contents decodes in OpenSSL, and must not here. */
static void certificate_in_ber_is_malformed(void **state)
{
	uint8_t copy[CERT_BYTES_MAX] = { 0x30, 0x80 };
	struct cert_info i;

	(void)state;
	assert_int_equal(d.root.data[1], 0x82);
	memcpy(copy + 2, d.root.data + 4, d.root.len - 4);
	assert_int_equal(
		cert_info((struct slice){ copy, d.root.len }, &i, NULL), ERR_MALFORMED);
}

static void root_must_be_a_root(void **state)
{
	AUTO(signer) s = signer_new_enrolled(&d, "host1");
	struct trust t = d.trust;
	struct cert_info i;

	(void)state;
	t.root_der = slice_buf(&d.registrar);
	assert_int_equal(
		trust_verify(&t, (struct slice[]){ slice_buf(&s->chain[0]) }, 1, &i, NULL),
		ERR_UNTRUSTED);
	t.root_der = (struct slice){ NULL, 0 };
	assert_int_equal(verify_signer(&t, s, &i, NULL), ERR_MALFORMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(certificate_says_what_was_asked_for),
		cmocka_unit_test(each_kind_is_recognised),
		cmocka_unit_test(validity_beyond_2049_is_kept),
		cmocka_unit_test(issuers_issue_only_what_they_may),
		cmocka_unit_test(a_principals_certificate_says_what_it_may_at_most),
		cmocka_unit_test(bad_names_roles_and_times_are_not_issued),
		cmocka_unit_test(roles_have_words),
		cmocka_unit_test(chains_to_the_root_are_trusted),
		cmocka_unit_test(other_shapes_of_chains_are_refused),
		cmocka_unit_test(another_domain_of_the_same_name_is_refused),
		cmocka_unit_test(self_signed_joiner_is_not_trusted),
		cmocka_unit_test(validity_is_checked_with_skew),
		cmocka_unit_test(each_link_must_be_in_time),
		cmocka_unit_test(each_link_must_not_be_revoked),
		cmocka_unit_test(any_flipped_bit_breaks_a_certificate),
		cmocka_unit_test(truncated_or_lengthened_certificates_are_malformed),
		cmocka_unit_test(certificate_in_ber_is_malformed),
		cmocka_unit_test(root_must_be_a_root),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
