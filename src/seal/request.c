/*
 * Signing requests: a principal's key made where it is used, and what its owner asks the root to
 * sign (PKCS #10, RFC 2986). doc/protocol.md, "Certificates".
 */
#include "seal/ossl.h"

#include <string.h>

#define REQUEST_BYTES_MAX 4096

OSSL_DEFINE(X509_REQ, X509_REQ_free)
OSSL_DEFINE(GENERAL_NAMES, GENERAL_NAMES_free)

static int bad(struct errmsg *em, const char *why)
{
	ERR_clear_error();
	return err_set(em, ERR_MALFORMED, "bad signing request: %s", why);
}

static int put_purpose(X509_REQ *r, const char *name, unsigned roles)
{
	STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
	AUTOBUF text = BUF_INIT;
	X509_EXTENSION *e = NULL;
	int ok = 0;

	if (list && cert_purpose_text(CERT_PRINCIPAL, name, roles, NULL, &text) == 0)
		e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, buf_cstr(&text));
	if (e && sk_X509_EXTENSION_push(list, e) > 0)
		ok = X509_REQ_add_extensions(r, list) == 1;
	else
		X509_EXTENSION_free(e);
	sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
	return ok ? 0 : -1;
}

int request_make(const struct key *k, const char *name, unsigned roles, struct buf *der,
	struct errmsg *em)
{
	OSSL(X509_REQ, X509_REQ_free) r = X509_REQ_new();
	struct cert_request again;
	unsigned char *bytes = NULL;
	int n, rc;

	ERR_clear_error();
	if (!r || X509_REQ_set_version(r, X509_REQ_VERSION_1) != 1 ||
		X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(r), NID_commonName,
			MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0) != 1 ||
		X509_REQ_set_pubkey(r, k->pkey) != 1 || put_purpose(r, name, roles) < 0 ||
		X509_REQ_sign(r, k->pkey, NULL) <= 0 || (n = i2d_X509_REQ(r, &bytes)) <= 0)
		return ossl_fail(em, ERR_NOMEM, "cannot make the signing request");
	/* a name or role that can't be signed is found out here, not by the administrator */
	rc = request_parse((struct slice){ bytes, (size_t)n }, &again, em);
	rc = rc ? rc : buf_add(der, bytes, (size_t)n);
	OPENSSL_free(bytes);
	return rc;
}

static bool is_exact(X509_REQ *r, struct slice der)
{
	unsigned char *again = NULL;
	int n = i2d_re_X509_REQ_tbs(r, &again); /* encoded anew, not the bytes that came */

	OPENSSL_free(again);
	again = NULL;
	if (n <= 0)
		return false;
	n = i2d_X509_REQ(r, &again);
	bool same = n > 0 && slice_same(der, (struct slice){ again, (size_t)n });

	OPENSSL_free(again);
	return same;
}

/* cert.c speaks of certificates. */
static int bad_part(struct errmsg *em, int rc)
{
	static const char prefix[] = "bad certificate: ";
	struct errmsg said;

	if (rc < 0 && em && strncmp(em->text, prefix, sizeof(prefix) - 1) == 0) {
		said = *em;
		return bad(em, said.text + sizeof(prefix) - 1);
	}
	return rc;
}

static int parse_names(X509_REQ *r, struct cert_request *out, struct errmsg *em)
{
	STACK_OF(X509_EXTENSION) *list = X509_REQ_get_extensions(r);
	OSSL(GENERAL_NAMES, GENERAL_NAMES_free) names = NULL;
	struct cert_info info = { .kind = CERT_PRINCIPAL };
	int critical, rc;

	/* nothing else is asked for: it might be a restriction, or a right */
	if (sk_X509_EXTENSION_num(list) == 1 && X509_REQ_get_attr_count(r) == 1)
		names = X509V3_get_d2i(list, NID_subject_alt_name, &critical, NULL);
	sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
	rc = cert_subject_parse(X509_REQ_get_subject_name(r), info.name, em);
	rc = bad_part(em, rc ? rc : cert_purpose_parse(names, &info, em));
	if (rc == 0 && info.kind != CERT_PRINCIPAL)
		rc = bad(em, "it is not a principal's");
	if (rc == 0 && info.only[0])
		rc = bad(em, "what its key may not is for whoever signs it to say");
	if (rc < 0)
		return rc;
	memcpy(out->name, info.name, sizeof(out->name));
	out->roles = info.roles;
	return 0;
}

int request_parse(struct slice der, struct cert_request *out, struct errmsg *em)
{
	const unsigned char *p = der.p;
	struct cert_request found = { .roles = 0 };
	size_t n = sizeof(found.public_key);
	int rc;

	if (der.n == 0 || der.n > REQUEST_BYTES_MAX)
		return bad(em, "empty or larger than 4096 bytes");
	ERR_clear_error();
	OSSL(X509_REQ, X509_REQ_free) r = d2i_X509_REQ(NULL, &p, (long)der.n);

	if (!r || p != der.p + der.n || !is_exact(r, der))
		return bad(em, "not a request in DER");
	EVP_PKEY *key = X509_REQ_get0_pubkey(r);

	if (!key || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 ||
		EVP_PKEY_get_raw_public_key(key, found.public_key, &n) != 1 ||
		n != PUBLIC_KEY_BYTES)
		return bad(em, "not an Ed25519 key");
	rc = parse_names(r, &found, em);
	if (rc < 0)
		return rc;
	if (X509_REQ_verify(r, key) != 1) {
		ERR_clear_error();
		return err_set(em, ERR_SIGNATURE,
			"the signing request of %s is not signed by the key that it is for",
			found.name);
	}
	*out = found;
	return 0;
}

int request_save(const char *path, struct slice der, struct errmsg *em)
{
	OSSL(BIO, BIO_free_all) bio = BIO_new(BIO_s_mem());
	char *text;

	ERR_clear_error();
	if (!bio || PEM_write_bio(bio, PEM_STRING_X509_REQ, "", der.p, (long)der.n) <= 0)
		return ossl_fail(em, ERR_NOMEM, "cannot write the signing request");
	long n = BIO_get_mem_data(bio, &text);

	return file_replace(path, 0644, (struct slice){ (uint8_t *)text, (size_t)n }, true, em);
}

int request_load(const char *path, struct buf *der, struct errmsg *em)
{
	AUTOBUF text = BUF_MAX(SEAL_FILE_MAX);
	char *name = NULL, *header = NULL;
	unsigned char *data = NULL;
	long n = 0;
	int rc = file_read(path, false, &text, em);

	ERR_clear_error();
	if (rc < 0)
		return rc;
	OSSL(BIO, BIO_free_all) bio = BIO_new_mem_buf(text.data, (int)text.len);

	if (!bio || PEM_read_bio(bio, &name, &header, &data, &n) != 1 || n <= 0) {
		ERR_clear_error();
		return err_set(em, ERR_MALFORMED, "%s holds no signing request", path);
	}
	if (strcmp(name, PEM_STRING_X509_REQ) != 0)
		rc = err_set(em, ERR_MALFORMED, "%s holds a %.32s, not a signing request", path,
			name);
	else if (n > REQUEST_BYTES_MAX || buf_add(der, data, (size_t)n) < 0)
		rc = err_set(em, ERR_TOO_LARGE, "%s is too large", path);
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_free(data);
	return rc;
}
