/*
 * What the files of this room share; nobody else includes it, so OpenSSL's types stay in here.
 */
#pragma once

/* OpenSSL has a type of the name of one of our error codes; it steps aside while its headers
 * are read. */
#define ERR_STATE ossl_err_state
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#undef ERR_STATE

#include "seal/seal.h"

#define SIGNATURE_BYTES  64
#define PUBLIC_KEY_BYTES 32
#define SEAL_FILE_MAX    (64u << 10)

struct key {
	EVP_PKEY *pkey;
	uint8_t public_key[PUBLIC_KEY_BYTES];
};

/* Calls fn(x) at the end of the scope: OSSL(X509, X509_free) x = X509_new(); */
#define OSSL_DEFINE(type, fn)                                                                  \
	__attribute__((unused)) static inline void fn##_auto(type **p)                         \
	{                                                                                      \
		fn(*p);                                                                        \
	}
#define OSSL(type, fn) __attribute__((cleanup(fn##_auto))) type *
OSSL_DEFINE(X509, X509_free)
OSSL_DEFINE(EVP_PKEY, EVP_PKEY_free)
OSSL_DEFINE(EVP_MD_CTX, EVP_MD_CTX_free)
OSSL_DEFINE(BIO, BIO_free_all)

/* "what: OpenSSL's reason"; empties OpenSSL's error queue. Returns rc. */
int ossl_fail(struct errmsg *em, int rc, const char *what);

/* ---- signatures (sign.c) */
int signature_make(const struct key *k, struct slice message, uint8_t out[SIGNATURE_BYTES]);
/* Good signatures are remembered, bounded, by digest of key, signature and message. */
bool signature_good(const uint8_t public_key[PUBLIC_KEY_BYTES], struct slice message,
	const uint8_t signature[SIGNATURE_BYTES]);

/* ---- certificates (cert.c): everything that chains need, as plain data */
struct cert {
	struct cert_info info;
	uint8_t subject[DIGEST_BYTES], issuer[DIGEST_BYTES]; /* of the encoded names */
	size_t tbs_at, tbs_len; /* what is signed, within the DER */
	uint8_t signature[SIGNATURE_BYTES];
};
int cert_parse(struct slice der, struct cert *out, struct errmsg *em);
/* Name and signature lead from c to its issuer. */
bool cert_signed_by(struct slice der, const struct cert *c, const struct cert *issuer);
const char *cert_kind_word(enum cert_kind k);
/* The parts that a certificate and a request have in common: the common name, and the subject
 * alternative names with kind and roles (the name must be in *out already). */
int cert_subject_parse(X509_NAME *subject, char out[CERT_NAME_MAX + 1], struct errmsg *em);
int cert_purpose_parse(const GENERAL_NAMES *names, struct cert_info *out, struct errmsg *em);
/* "URI:tos:principal:olga,URI:tos:role:officer" */
int cert_purpose_text(enum cert_kind kind, const char *name, unsigned role_bits,
	const char *only, struct buf *text);
/* 0, ERR_EXPIRED or ERR_NOT_YET. */
int cert_in_time(const struct cert_info *c, int64_t now_ms, int64_t skew_ms, struct errmsg *em);

static inline struct slice slice_of(const struct buf *b)
{
	return (struct slice){ b->data, b->len };
}
bool slice_same(struct slice a, struct slice b);

/* ---- files (file.c) */
/* Written beside it, synced, then renamed. ERR_EXISTS, ERR_IO. */
int file_replace(
	const char *path, unsigned mode, struct slice bytes, bool replace, struct errmsg *em);
/* secret: refuse what everybody may read. ERR_NOT_FOUND, ERR_TOO_LARGE, ERR_DENIED, ERR_IO. */
int file_read(const char *path, bool secret, struct buf *out, struct errmsg *em);
