/* Key and certificate files: src/seal/{key,file,certs}.c. */
#include "domain.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "seal-test-XXXXXX";
static char path[64], cert_path[64];

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/key", folder);
	snprintf(cert_path, sizeof(cert_path), "%s/cert", folder);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	unlink(path);
	unlink(cert_path);
	return 0;
}

static int teardown(void **state)
{
	clean(state);
	return rmdir(folder); /* fails if anything was left behind */
}

static void write_text(const char *to, const char *text, mode_t mode)
{
	FILE *f = fopen(to, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(to, mode), 0);
}

static void assert_same_key(const struct key *a, const struct key *b)
{
	uint8_t pa[32], pb[32];

	key_public(a, pa);
	key_public(b, pb);
	assert_memory_equal(pa, pb, 32);
}

static void saved_key_loads_again(void **state)
{
	AUTO(key) k = key_new();
	AUTO(key) again = NULL;
	struct stat st;

	(void)state;
	assert_int_equal(key_save(k, path, NULL, false, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(key_load(path, NULL, &again, NULL), 0);
	assert_same_key(k, again);
}

static void existing_key_is_replaced_only_when_asked(void **state)
{
	AUTO(key) first = key_new();
	AUTO(key) second = key_new();
	AUTO(key) now = NULL;
	AUTO(key) then = NULL;

	(void)state;
	assert_int_equal(key_save(first, path, NULL, false, NULL), 0);
	assert_int_equal(key_save(second, path, NULL, false, NULL), ERR_EXISTS);
	assert_int_equal(key_load(path, NULL, &now, NULL), 0);
	assert_same_key(first, now);
	assert_int_equal(key_save(second, path, NULL, true, NULL), 0);
	assert_int_equal(key_load(path, NULL, &then, NULL), 0);
	assert_same_key(second, then);
}

static void passphrase_is_needed_and_must_be_right(void **state)
{
	AUTO(key) k = key_new();
	AUTO(key) again = NULL;
	struct errmsg em = { "" };
	char text[4096];
	FILE *f;

	(void)state;
	assert_int_equal(key_save(k, path, "correct horse", false, NULL), 0);
	f = fopen(path, "r");
	text[fread(text, 1, sizeof(text) - 1, f)] = 0;
	fclose(f);
	assert_non_null(strstr(text, "BEGIN ENCRYPTED PRIVATE KEY"));
	assert_int_equal(key_load(path, NULL, &again, &em), ERR_DENIED);
	assert_non_null(strstr(em.text, "passphrase"));
	assert_int_equal(key_load(path, "", &again, NULL), ERR_DENIED);
	assert_int_equal(key_load(path, "battery staple", &again, &em), ERR_DENIED);
	assert_non_null(strstr(em.text, "wrong passphrase"));
	assert_null(again);
	assert_int_equal(key_load(path, "correct horse", &again, NULL), 0);
	assert_same_key(k, again);
}

static void key_that_everybody_may_read_is_refused(void **state)
{
	AUTO(key) k = key_new();
	AUTO(key) again = NULL;

	(void)state;
	assert_int_equal(key_save(k, path, NULL, false, NULL), 0);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(key_load(path, NULL, &again, NULL), ERR_DENIED);
}

static void files_without_a_key_are_refused(void **state)
{
	static const char p256[] =
		"-----BEGIN PRIVATE KEY-----\n"
		"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n"
		"OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n"
		"1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n"
		"-----END PRIVATE KEY-----\n";
	AUTO(key) k = NULL;
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(key_load(path, NULL, &k, NULL), ERR_NOT_FOUND);
	write_text(path, "", 0600);
	assert_int_equal(key_load(path, NULL, &k, NULL), ERR_MALFORMED);
	write_text(
		path, "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n", 0600);
	assert_int_equal(key_load(path, NULL, &k, NULL), ERR_MALFORMED);
	write_text(path, p256, 0600);
	assert_int_equal(key_load(path, NULL, &k, &em), ERR_MALFORMED);
	assert_non_null(strstr(em.text, "Ed25519"));
	assert_int_equal(key_load(folder, NULL, &k, NULL), ERR_IO);
	assert_int_equal(truncate(path, 1 << 20), 0);
	assert_int_equal(key_load(path, NULL, &k, NULL), ERR_TOO_LARGE);
	assert_null(k);
}

static void unwritable_place_is_an_error_with_its_path(void **state)
{
	AUTO(key) k = key_new();
	struct errmsg em = { "" };

	(void)state;
	assert_int_equal(key_save(k, "no-such-folder/key", NULL, false, &em), ERR_IO);
	assert_non_null(strstr(em.text, "no-such-folder/key"));
}

static void saved_chain_loads_in_order(void **state)
{
	struct domain d;
	struct buf back[COSE_CHAIN_MAX];
	size_t n = 0;

	(void)state;
	domain_init(&d);
	struct slice both[] = { slice_buf(&d.registrar), slice_buf(&d.root) };

	assert_int_equal(certs_save(cert_path, both, 2, NULL), 0);
	assert_int_equal(certs_load(cert_path, back, &n, NULL), 0);
	assert_int_equal(n, 2);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(back[i].len, both[i].n);
		assert_memory_equal(back[i].data, both[i].p, both[i].n);
		buf_fini(&back[i]);
	}
	domain_fini(&d);
}

static void files_without_good_certificates_are_refused(void **state)
{
	struct buf back[COSE_CHAIN_MAX];
	struct slice junk = { (const uint8_t *)"junk", 4 };
	struct domain d;
	size_t n = 77;

	(void)state;
	domain_init(&d);
	struct slice four[] = { slice_buf(&d.root), slice_buf(&d.root), slice_buf(&d.root),
		slice_buf(&d.root) };

	assert_int_equal(certs_load(cert_path, back, &n, NULL), ERR_NOT_FOUND);
	write_text(cert_path, "hello\n", 0644);
	assert_int_equal(certs_load(cert_path, back, &n, NULL), ERR_MALFORMED);
	write_text(cert_path,
		"-----BEGIN CERTIFICATE-----\nanVuaw==\n-----END CERTIFICATE-----\n", 0644);
	assert_int_equal(certs_load(cert_path, back, &n, NULL), ERR_MALFORMED);
	assert_int_equal(certs_save(cert_path, &junk, 1, NULL), ERR_MALFORMED);
	assert_int_equal(certs_save(cert_path, four, 4, NULL), 0);
	assert_int_equal(certs_load(cert_path, back, &n, NULL), ERR_TOO_LARGE);
	assert_int_equal(n, 77);
	domain_fini(&d);
}

static void signer_loads_and_leaves_the_root_out(void **state)
{
	AUTO(signer) back = NULL;
	struct domain d;

	(void)state;
	domain_init(&d);
	AUTO(signer) s = signer_new_enrolled(&d, "host1");
	struct slice chain[] = { slice_buf(&s->chain[0]), slice_buf(&s->chain[1]),
		slice_buf(&d.root) };

	assert_int_equal(key_save(s->key, path, NULL, false, NULL), 0);
	assert_int_equal(certs_save(cert_path, chain, 3, NULL), 0);
	assert_int_equal(signer_load(path, cert_path, NULL, &back, NULL), 0);
	assert_int_equal(back->n_chain, 2);
	assert_string_equal(back->info.name, "host1");
	domain_fini(&d);
}

static void signer_with_a_foreign_certificate_is_refused(void **state)
{
	AUTO(signer) back = NULL;
	AUTO(key) other = key_new();
	struct domain d;

	(void)state;
	domain_init(&d);
	AUTO(signer) s = signer_new_enrolled(&d, "host1");
	struct slice chain[] = { slice_buf(&s->chain[0]) };

	assert_int_equal(key_save(other, path, NULL, false, NULL), 0);
	assert_int_equal(certs_save(cert_path, chain, 1, NULL), 0);
	assert_int_equal(signer_load(path, cert_path, NULL, &back, NULL), ERR_CONFIG);
	assert_null(back);
	domain_fini(&d);
}

static void digests_are_sha256(void **state)
{
	static const uint8_t abc[] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41,
		0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
		0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
	uint8_t out[DIGEST_BYTES], a[32], b[32];

	(void)state;
	digest_bytes("abc", 3, out);
	assert_memory_equal(out, abc, sizeof(abc));
	digest_bytes(NULL, 0, out);
	assert_int_equal(out[0], 0xe3);
	random_bytes(a, sizeof(a));
	random_bytes(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(saved_key_loads_again, clean),
		cmocka_unit_test_teardown(existing_key_is_replaced_only_when_asked, clean),
		cmocka_unit_test_teardown(passphrase_is_needed_and_must_be_right, clean),
		cmocka_unit_test_teardown(key_that_everybody_may_read_is_refused, clean),
		cmocka_unit_test_teardown(files_without_a_key_are_refused, clean),
		cmocka_unit_test_teardown(unwritable_place_is_an_error_with_its_path, clean),
		cmocka_unit_test_teardown(saved_chain_loads_in_order, clean),
		cmocka_unit_test_teardown(files_without_good_certificates_are_refused, clean),
		cmocka_unit_test_teardown(signer_loads_and_leaves_the_root_out, clean),
		cmocka_unit_test_teardown(signer_with_a_foreign_certificate_is_refused, clean),
		cmocka_unit_test_teardown(digests_are_sha256, clean),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
