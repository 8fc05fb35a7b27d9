/*
 * Keys, certificates, signatures and digests: the only room that includes OpenSSL.
 *
 * Certificates are X.509 v3 with Ed25519 keys. The subject's CN is the name. What the
 * certificate is for stands in URI subjectAltNames (doc/protocol.md, "Certificates"):
 *
 *   tos:root               the domain's root
 *   tos:registrar          an intermediate that may issue tos:kernel only
 *   tos:kernel:host0       a kernel
 *   tos:principal:alice    a principal, with one or more of
 *   tos:role:ROLE          ROLE is admin, owner, author or officer
 *   tos:only:RESTRICTION   and what it may at most (base/right.h), percent-encoded
 *   tos:joiner             a key without a certificate yet, self-signed: talks to Registrar
 *
 * Nothing here does network I/O. All of it may be called from any thread, one object from one
 * thread at a time; the memories of good signatures and parsed certificates are locked inside.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/right.h"
#include "wire/cose.h"

#define CERT_NAME_MAX  64
#define CERT_BYTES_MAX 4096

void digest_bytes(const void *p, size_t n, uint8_t out[DIGEST_BYTES]); /* SHA-256 */
/* The same, bit by bit. */
struct digester;
struct digester *digester_new(void);
void digester_free(struct digester *d);
AUTO_DEFINE(digester)
void digester_add(struct digester *d, const void *p, size_t n);
void digester_end(
	struct digester *d, uint8_t out[DIGEST_BYTES]); /* it can only be freed then */
void random_bytes(void *p, size_t n);                   /* aborts if the OS has none */

/* ---- keys */
struct key; /* a private Ed25519 key */
struct key *key_new(void);
void key_free(struct key *k); /* wipes */
AUTO_DEFINE(key)
/* PEM (PKCS #8; with a passphrase AES-256 and PBKDF2), mode 0600, written to a new file, synced
 * and renamed. passphrase: NULL or "" for none. ERR_EXISTS unless replace, ERR_IO. */
int key_save(const struct key *k, const char *path, const char *passphrase, bool replace,
	struct errmsg *em);
/* ERR_NOT_FOUND, ERR_DENIED (passphrase missing or wrong, or everybody may read the file),
 * ERR_MALFORMED, ERR_TOO_LARGE, ERR_IO. Never asks at a terminal. */
int key_load(const char *path, const char *passphrase, struct key **out, struct errmsg *em);
void key_public(const struct key *k, uint8_t out[32]);

/* ---- certificates */
enum role { ROLE_ADMIN = 1, ROLE_OWNER = 2, ROLE_AUTHOR = 4, ROLE_OFFICER = 8 };
enum cert_kind { CERT_ROOT, CERT_REGISTRAR, CERT_KERNEL, CERT_PRINCIPAL, CERT_JOINER };
unsigned role_parse(const char *word); /* 0 if unknown */
const char *role_word(enum role r);

struct cert_info {
	enum cert_kind kind;
	char name[CERT_NAME_MAX + 1];
	unsigned roles; /* bits of enum role */
	uint8_t serial[20];
	size_t serial_len;
	uint8_t public_key[32];
	uint8_t fingerprint[DIGEST_BYTES]; /* SHA-256 of the DER */
	int64_t not_before_ms, not_after_ms;
	/* Restrictions, one a line; "" none. What they mean is not looked at here. */
	char only[RIGHTS_BYTES];
};

/* Sign a certificate for `subject_public` (32 bytes); its DER is appended to *out. issuer_der
 * empty: self-signed, for root and joiner. A root issues registrars, kernels and principals, a
 * registrar kernels only (else ERR_DENIED). ERR_NAME, ERR_USAGE. */
int cert_issue(const struct key *issuer, struct slice issuer_der, enum cert_kind kind,
	const char *name, unsigned roles, const uint8_t subject_public[32],
	int64_t not_before_ms, int64_t not_after_ms, struct buf *out, struct errmsg *em);
/* The same for a principal, with restrictions (base/right.h; NULL or "": none). ERR_USAGE: one is
 * malformed. */
int cert_issue_only(const struct key *issuer, struct slice issuer_der, enum cert_kind kind,
	const char *name, unsigned roles, const char *only, const uint8_t subject_public[32],
	int64_t not_before_ms, int64_t not_after_ms, struct buf *out, struct errmsg *em);
int cert_info(struct slice der, struct cert_info *out, struct errmsg *em);
/* PEM files with one or more certificates, leaf first. */
int certs_save(const char *path, const struct slice *ders, size_t n, struct errmsg *em);
int certs_load(const char *path, struct buf ders[COSE_CHAIN_MAX], size_t *n,
	struct errmsg *em); /* caller finis */

/* ---- signing requests: PKCS #10 by a principal's key that was made elsewhere, with the name
 * and the roles it asks for as a certificate has them. Whoever signs decides on the roles. */
struct cert_request {
	char name[CERT_NAME_MAX + 1];
	unsigned roles;
	uint8_t public_key[32];
};
int request_make(const struct key *k, const char *name, unsigned roles, struct buf *der,
	struct errmsg *em);
/* Its signature is checked: who made it has the key. ERR_MALFORMED, ERR_SIGNATURE. */
int request_parse(struct slice der, struct cert_request *out, struct errmsg *em);
int request_save(const char *path, struct slice der, struct errmsg *em); /* PEM */
int request_load(const char *path, struct buf *der, struct errmsg *em);

/* ---- revocation: a numbered list signed by the root: COSE_Sign1 kind "revocation" over
 * {issued, number, revoked: [serial bstr...]} sorted. */
struct revocation;
int revocation_decode(
	struct slice cose, struct slice root_der, struct revocation **out, struct errmsg *em);
int revocation_make(const struct key *root, struct slice root_der, uint64_t number,
	int64_t issued_ms, const struct slice *serials, size_t n, struct buf *out,
	struct errmsg *em);
void revocation_free(struct revocation *r);
AUTO_DEFINE(revocation)
uint64_t revocation_number(const struct revocation *r);
int64_t revocation_issued_ms(const struct revocation *r);
size_t revocation_count(const struct revocation *r);
bool revocation_has(const struct revocation *r, const uint8_t *serial, size_t n);
struct slice revocation_serial(const struct revocation *r, size_t i);

/* ---- trust: what chains are checked against */
struct trust {
	struct slice root_der;
	const struct revocation *revocation; /* may be NULL */
	int64_t now_ms;                      /* wall */
	int64_t skew_ms;                     /* allowed either way */
};
/* Verify the chain (leaf first, without the root) and describe the leaf. A chain through a
 * registrar may only end in a kernel. ERR_UNTRUSTED, ERR_EXPIRED, ERR_NOT_YET, ERR_REVOKED,
 * ERR_MALFORMED. */
int trust_verify(const struct trust *t, const struct slice *chain, size_t n,
	struct cert_info *leaf, struct errmsg *em);

/* ---- COSE */
struct signer {
	struct key *key;
	struct buf chain[COSE_CHAIN_MAX]; /* DER, leaf first, root left out */
	size_t n_chain;
	struct cert_info info;
};
int signer_load(const char *key_path, const char *cert_path, const char *passphrase,
	struct signer **out, struct errmsg *em);
void signer_free(struct signer *s);
AUTO_DEFINE(signer)
/* Append the COSE_Sign1 for payload. kind: "ticket", "manifest", "hop", "act", ... */
int cose_sign(const struct signer *s, const char *kind, struct slice payload, struct buf *out,
	struct errmsg *em);
/* Take apart, check kind, chain and signature. The signer's certificate is described in *who.
 * Verified signatures are remembered by digest (bounded), so that a second look is cheap; chain
 * validity is checked each time. ERR_MALFORMED, ERR_TOO_LARGE, ERR_SIGNATURE and those
 * of trust_verify. *out borrows from `bytes`; who may be NULL. */
int cose_verify(const struct trust *t, const char *kind, struct slice bytes, struct cose *out,
	struct cert_info *who, struct errmsg *em);
/* Identity of a signed thing: SHA-256 over the deterministic encoding of [protected, payload].
 */
void cose_id(const struct cose *c, uint8_t out[DIGEST_BYTES]);

/* ---- TLS 1.3 sessions without I/O */
struct tls_context; /* certificate, key, root; one a process */
struct tls_session;
int tls_context_new(const struct signer *s, struct slice root_der, struct tls_context **out,
	struct errmsg *em);
/* For a host that joins: presents a self-signed tos:joiner certificate for this key and accepts
 * any server chain whose root (servers send it along) has this fingerprint. The root's DER is
 * available from tls_peer_root() afterwards. */
int tls_context_new_joiner(const struct key *k, const uint8_t fingerprint[DIGEST_BYTES],
	struct tls_context **out, struct errmsg *em);
/* Another certificate for handshakes from now on; sessions that are open keep theirs. On failure
 * nothing has changed. */
int tls_context_renew(struct tls_context *t, const struct signer *s, struct slice root_der,
	struct errmsg *em);
void tls_context_free(struct tls_context *t);
AUTO_DEFINE(tls_context)
/* The revocation list and clock used for handshakes from now on; borrowed, NULL for none. */
void tls_context_trust(struct tls_context *t, const struct revocation *r, int64_t skew_ms);
struct tls_session *tls_session_new(struct tls_context *t, bool server);
void tls_session_free(struct tls_session *s);
AUTO_DEFINE(tls_session)
/* Feed what came from the network; plain text is appended to *plain, what must be sent to
 * *wire. 0, ERR_CLOSED (the peer said goodbye) or a failure. */
int tls_feed(struct tls_session *s, const void *p, size_t n, struct buf *plain,
	struct buf *wire, struct errmsg *em);
/* Start a client's handshake, or encrypt; before the handshake is over it fails with ERR_STATE.
 */
int tls_start(struct tls_session *s, struct buf *wire, struct errmsg *em);
int tls_send(
	struct tls_session *s, const void *p, size_t n, struct buf *wire, struct errmsg *em);
int tls_close(struct tls_session *s, struct buf *wire);
bool tls_ready(const struct tls_session *s); /* handshake done on our side */
/* Who the peer is, verified by trust_verify on its chain; only after tls_ready. The first
 * application data proves that the peer accepted us. */
int tls_peer(const struct tls_session *s, struct cert_info *out);
int tls_peer_root(const struct tls_session *s, struct buf *der);

/* ---- tokens: enrolment (doc/protocol.md, "Enrolment"). Text form "tos1." + base64url of CBOR
 * {addresses: [tstr], expires, fingerprint: bstr 32, name, secret: bstr 32}. */
struct token {
	uint8_t fingerprint[DIGEST_BYTES], secret[32];
	char addresses[4][128];
	size_t n_addresses;
	char name[CERT_NAME_MAX + 1];
	int64_t expires_ms;
};
int token_parse(const char *text, struct token *out, struct errmsg *em);
int token_text(const struct token *t, struct buf *out);
