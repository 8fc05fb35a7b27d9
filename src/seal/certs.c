/* Files with certificates (PEM, leaf first), and the signer: a key with its chain. */
#include "seal/ossl.h"

#include <string.h>

int certs_save(const char *path, const struct slice *ders, size_t n, struct errmsg *em)
{
	OSSL(BIO, BIO_free_all) bio = BIO_new(BIO_s_mem());
	char *text;

	ERR_clear_error();
	for (size_t i = 0; i < n; i++) {
		/* what can't be read back is not written */
		struct cert_info info;
		int rc = cert_info(ders[i], &info, em);

		if (rc < 0)
			return err_wrap(em, rc, "cannot write %s", path);
		if (!bio || PEM_write_bio(
				    bio, PEM_STRING_X509, "", ders[i].p, (long)ders[i].n) <= 0)
			return ossl_fail(em, ERR_NOMEM, "cannot write certificates");
	}
	long len = BIO_get_mem_data(bio, &text);

	return file_replace(
		path, 0644, (struct slice){ (uint8_t *)text, (size_t)len }, true, em);
}

/* One PEM block: 1 read, 0 no more, negative failure. */
static int load_one(BIO *bio, struct buf *der, struct errmsg *em)
{
	char *name = NULL, *header = NULL;
	unsigned char *data = NULL;
	long n = 0;
	int rc;

	if (PEM_read_bio(bio, &name, &header, &data, &n) != 1) {
		bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;

		ERR_clear_error();
		return end ? 0 : err_set(em, ERR_MALFORMED, "broken PEM");
	}
	*der = (struct buf)BUF_MAX(CERT_BYTES_MAX);
	if (strcmp(name, PEM_STRING_X509) != 0)
		rc = err_set(em, ERR_MALFORMED, "holds a %.32s", name);
	else if (n <= 0 || buf_add(der, data, (size_t)n) < 0)
		rc = err_set(em, ERR_TOO_LARGE, "a certificate is too large");
	else
		rc = 1;
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_free(data);
	if (rc < 0)
		buf_fini(der);
	return rc;
}

static void load_undo(struct buf *ders, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_fini(&ders[i]);
}

static int load_all(BIO *bio, struct buf ders[COSE_CHAIN_MAX], size_t *n, struct errmsg *em)
{
	size_t have = 0;
	int rc;

	for (;;) {
		struct buf one = BUF_INIT;
		struct cert_info info;

		rc = load_one(bio, &one, em);
		if (rc == 0 && have == 0)
			rc = err_set(em, ERR_MALFORMED, "holds no certificate");
		if (rc > 0 && have == COSE_CHAIN_MAX)
			rc = err_set(em, ERR_TOO_LARGE, "holds more than %d", COSE_CHAIN_MAX);
		if (rc > 0 && cert_info(slice_of(&one), &info, em) < 0)
			rc = ERR_MALFORMED;
		if (rc <= 0) {
			buf_fini(&one);
			break;
		}
		ders[have++] = one;
	}
	if (rc < 0)
		load_undo(ders, have);
	else
		*n = have;
	return rc;
}

int certs_load(const char *path, struct buf ders[COSE_CHAIN_MAX], size_t *n, struct errmsg *em)
{
	AUTOBUF text = BUF_MAX(SEAL_FILE_MAX);
	int rc;

	ERR_clear_error();
	rc = file_read(path, false, &text, em);
	if (rc < 0)
		return rc;
	OSSL(BIO, BIO_free_all) bio = BIO_new_mem_buf(text.data, (int)text.len);

	if (!bio)
		return ossl_fail(em, ERR_NOMEM, "cannot read certificates");
	rc = load_all(bio, ders, n, em);
	return rc < 0 ? err_wrap(em, rc, "%s", path) : 0;
}

void signer_free(struct signer *s)
{
	if (!s)
		return;
	key_free(s->key);
	for (size_t i = 0; i < s->n_chain; i++)
		buf_fini(&s->chain[i]);
	free(s);
}

int signer_load(const char *key_path, const char *cert_path, const char *passphrase,
	struct signer **out, struct errmsg *em)
{
	AUTO(signer) s = mem_new(struct signer);
	struct cert_info last = { .kind = 0 };
	int rc = certs_load(cert_path, s->chain, &s->n_chain, em);

	if (rc < 0)
		return rc;
	rc = key_load(key_path, passphrase, &s->key, em);
	if (rc < 0)
		return rc;
	rc = cert_info(slice_of(&s->chain[0]), &s->info, em);
	if (rc == 0)
		rc = cert_info(slice_of(&s->chain[s->n_chain - 1]), &last, em);
	if (rc < 0)
		return err_wrap(em, rc, "%s", cert_path);
	/* who checks a chain has the root already; the root's own signer keeps it */
	if (s->n_chain > 1 && last.kind == CERT_ROOT)
		buf_fini(&s->chain[--s->n_chain]);
	if (memcmp(s->key->public_key, s->info.public_key, PUBLIC_KEY_BYTES) != 0)
		return err_set(em, ERR_CONFIG, "%s is not the certificate for the key %s",
			cert_path, key_path);
	*out = STEAL(s);
	return 0;
}
