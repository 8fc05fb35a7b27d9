/* Private keys: made, kept in PEM files (PKCS #8, under a passphrase if wanted), wiped. */
#include "seal/ossl.h"

#include <string.h>

/* OWASP's figure for PBKDF2 with SHA-256: a third of a second for who guesses, and for us once
 */
#define KEY_ITERATIONS 600000

OSSL_DEFINE(PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free)
OSSL_DEFINE(X509_SIG, X509_SIG_free)

static struct key *key_of(EVP_PKEY *pkey)
{
	struct key *k = mem_new(struct key);
	size_t n = sizeof(k->public_key);

	k->pkey = pkey;
	must(EVP_PKEY_get_raw_public_key(pkey, k->public_key, &n) == 1 &&
		n == PUBLIC_KEY_BYTES);
	return k;
}

struct key *key_new(void)
{
	EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

	must(pkey != NULL);
	return key_of(pkey);
}

void key_free(struct key *k)
{
	if (!k)
		return;
	EVP_PKEY_free(k->pkey); /* OpenSSL wipes the secret part */
	free(k);
}

void key_public(const struct key *k, uint8_t out[32])
{
	memcpy(out, k->public_key, PUBLIC_KEY_BYTES);
}

static int put_encrypted(BIO *bio, PKCS8_PRIV_KEY_INFO *plain, const char *passphrase)
{
	X509_ALGOR *pbe = PKCS5_pbe2_set_iv(
		EVP_aes_256_cbc(), KEY_ITERATIONS, NULL, 0, NULL, NID_hmacWithSHA256);

	if (!pbe)
		return -1;
	OSSL(X509_SIG, X509_SIG_free)
	sealed = PKCS8_set0_pbe(passphrase, (int)strlen(passphrase), plain, pbe);

	if (!sealed) {
		X509_ALGOR_free(pbe);
		return -1;
	}
	return PEM_write_bio_PKCS8(bio, sealed) == 1 ? 0 : -1;
}

static int put_key(BIO *bio, const struct key *k, const char *passphrase)
{
	OSSL(PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free) plain = EVP_PKEY2PKCS8(k->pkey);

	if (!plain)
		return -1;
	if (passphrase && *passphrase)
		return put_encrypted(bio, plain, passphrase);
	return PEM_write_bio_PKCS8_PRIV_KEY_INFO(bio, plain) == 1 ? 0 : -1;
}

int key_save(const struct key *k, const char *path, const char *passphrase, bool replace,
	struct errmsg *em)
{
	OSSL(BIO, BIO_free_all) bio = BIO_new(BIO_s_secmem());
	char *text;
	long n;

	if (!bio || put_key(bio, k, passphrase) < 0)
		return ossl_fail(em, ERR_NOMEM, "cannot encode the key");
	n = BIO_get_mem_data(bio, &text);
	return file_replace(
		path, 0600, (struct slice){ (uint8_t *)text, (size_t)n }, replace, em);
}

struct pass {
	const char *text;
	bool asked;
};

/* Never asks at a terminal, which is what OpenSSL does without a callback. */
static int give_pass(char *out, int size, int writing, void *arg)
{
	struct pass *p = arg;
	size_t n = p->text ? strlen(p->text) : 0;

	(void)writing;
	p->asked = true;
	if (n == 0 || n > (size_t)size)
		return -1;
	memcpy(out, p->text, n);
	return (int)n;
}

static int key_decode(const struct buf *text, const char *path, const char *passphrase,
	struct key **out, struct errmsg *em)
{
	struct pass pass = { passphrase, false };
	OSSL(BIO, BIO_free_all) bio = BIO_new_mem_buf(text->data, (int)text->len);

	if (!bio)
		return ossl_fail(em, ERR_NOMEM, "cannot read the key");
	EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, give_pass, &pass);

	ERR_clear_error();
	if (!pkey && pass.asked && (!passphrase || !*passphrase))
		return err_set(em, ERR_DENIED, "%s needs its passphrase", path);
	if (!pkey && pass.asked)
		return err_set(em, ERR_DENIED, "wrong passphrase for %s", path);
	if (!pkey)
		return err_set(em, ERR_MALFORMED, "%s holds no private key", path);
	if (EVP_PKEY_get_id(pkey) != EVP_PKEY_ED25519) {
		EVP_PKEY_free(pkey);
		return err_set(em, ERR_MALFORMED, "the key in %s is not an Ed25519 key", path);
	}
	*out = key_of(pkey);
	return 0;
}

int key_load(const char *path, const char *passphrase, struct key **out, struct errmsg *em)
{
	AUTOBUF text = BUF_MAX(SEAL_FILE_MAX);
	int rc;

	ERR_clear_error();
	rc = file_read(path, true, &text, em);
	if (rc == 0)
		rc = key_decode(&text, path, passphrase, out, em);
	if (text.data)
		OPENSSL_cleanse(text.data, text.cap);
	return rc;
}
