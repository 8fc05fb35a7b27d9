/*
 * TLS 1.3 sessions over memory: bytes in, bytes out, no sockets. The link room moves the bytes.
 *
 * OpenSSL does the handshake, but does not judge certificates: its verify step is replaced by
 * trust_verify(), so that one piece of code knows clock skew, revocation and who may issue
 * what. Both sides send their chain with the root, so that a joining host can find the root
 * whose fingerprint it was given. No tickets, no cache, no resumption: every connection is
 * judged anew.
 */
#include "seal/ossl.h"

#include <limits.h>
#include <string.h>

#include "base/clock.h"

#define SKEW_DEFAULT_MS INT64_C(300000)
#define JOINER_LIFE_MS  INT64_C(86400000)
#define PLAIN_BYTES     16384 /* one record */

struct tls_context {
	SSL_CTX *ctx;
	struct buf root; /* DER; empty for a joiner */
	bool joiner;
	uint8_t fingerprint[DIGEST_BYTES]; /* joiner: of the root */
	const struct revocation *revocation;
	int64_t skew_ms;
};

struct tls_session {
	SSL *ssl;
	BIO *from_peer, *to_peer; /* owned by ssl */
	struct tls_context *context;
	bool server, ready;
	int failed;  /* what every further call answers */
	int verdict; /* ours on the peer's chain */
	struct errmsg why;
	bool peer_known;
	struct cert_info peer;
	struct buf peer_root;
};

static int session_index(void)
{
	static int index = -1;

	/* first called while contexts are made, before any second thread */
	if (index < 0)
		index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	must(index >= 0);
	return index;
}

/* ---- judging the peer */

struct peer_chain {
	struct buf der[COSE_CHAIN_MAX + 1];
	struct slice slice[COSE_CHAIN_MAX + 1];
	size_t n;
};

static void peer_chain_fini(struct peer_chain *p)
{
	for (size_t i = 0; i < p->n; i++)
		buf_fini(&p->der[i]);
}

static int peer_chain_read(X509_STORE_CTX *store, struct peer_chain *p, struct errmsg *em)
{
	STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store);
	int n = sent ? sk_X509_num(sent) : 0;

	if (n < 1 || n > COSE_CHAIN_MAX + 1)
		return err_set(em, ERR_MALFORMED, "the peer sent %d certificates", n);
	for (int i = 0; i < n; i++) {
		unsigned char *der = NULL;
		int len = i2d_X509(sk_X509_value(sent, i), &der);
		struct buf *to = &p->der[p->n];

		*to = (struct buf)BUF_MAX(CERT_BYTES_MAX);
		int rc = len > 0 ? buf_add(to, der, (size_t)len) : ERR_NOMEM;

		OPENSSL_free(der);
		if (rc < 0)
			return err_set(
				em, ERR_MALFORMED, "the peer's certificate is too large");
		p->slice[p->n++] = slice_of(to);
	}
	return 0;
}

/* A key without a certificate yet: it proves nothing but that key, and only a server hears it.
 */
static int judge_joiner(const struct trust *t, const struct peer_chain *p,
	struct cert_info *out, struct errmsg *em)
{
	struct cert c;
	int rc = cert_parse(p->slice[0], &c, em);

	if (rc < 0)
		return rc;
	if (p->n != 1 || c.info.roles || !cert_signed_by(p->slice[0], &c, &c))
		return err_set(em, ERR_UNTRUSTED, "the joining host did not sign for itself");
	rc = cert_in_time(&c.info, t->now_ms, t->skew_ms, em);
	if (rc == 0)
		*out = c.info;
	return rc;
}

/* The root that our own fingerprint names must stand at the end of what the server sent. */
static int judge_pinned_root(struct tls_session *s, const struct peer_chain *p,
	struct slice *root, struct errmsg *em)
{
	uint8_t digest[DIGEST_BYTES];

	*root = p->slice[p->n - 1];
	digest_bytes(root->p, root->n, digest);
	if (memcmp(digest, s->context->fingerprint, DIGEST_BYTES) != 0)
		return err_set(em, ERR_UNTRUSTED,
			"this server is not of the domain that the token names");
	buf_clear(&s->peer_root);
	return buf_add(&s->peer_root, root->p, root->n);
}

/* Peers send their root along: ours is left out of the chain, another gets a clearer answer
 * than a signature that does not match. */
static int judge_sent_root(
	const struct peer_chain *p, struct slice our_root, size_t *n, struct errmsg *em)
{
	struct cert_info last;
	int rc = cert_info(p->slice[*n - 1], &last, em);

	if (rc < 0 || last.kind != CERT_ROOT)
		return rc;
	if (!slice_same(p->slice[*n - 1], our_root))
		return err_set(
			em, ERR_UNTRUSTED, "the peer belongs to another domain: %s", last.name);
	*n -= 1;
	return 0;
}

static int judge(struct tls_session *s, const struct peer_chain *p, struct errmsg *em)
{
	struct tls_context *c = s->context;
	struct trust t = { slice_of(&c->root), c->revocation, clock_wall_ms(), c->skew_ms };
	struct cert_info first;
	size_t n = p->n;
	int rc = cert_info(p->slice[0], &first, em);

	if (rc == 0 && s->server && first.kind == CERT_JOINER)
		return judge_joiner(&t, p, &s->peer, em);
	if (rc == 0 && c->joiner)
		rc = judge_pinned_root(s, p, &t.root_der, em);
	if (rc < 0)
		return rc;
	if (n > 1) {
		rc = judge_sent_root(p, t.root_der, &n, em);
		if (rc < 0)
			return rc;
	}
	rc = trust_verify(&t, p->slice, n, &s->peer, em);
	if (rc == 0 && !s->server && s->peer.kind != CERT_KERNEL)
		return err_set(em, ERR_UNTRUSTED, "%s is not a kernel", s->peer.name);
	return rc;
}

/* What OpenSSL makes the alert from that tells the peer. */
static int verify_code(int rc)
{
	switch (rc) {
	case 0:
		return X509_V_OK;
	case ERR_EXPIRED:
		return X509_V_ERR_CERT_HAS_EXPIRED;
	case ERR_REVOKED:
		return X509_V_ERR_CERT_REVOKED;
	case ERR_NOT_YET:
		return X509_V_ERR_CERT_NOT_YET_VALID;
	case ERR_UNTRUSTED:
		return X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN;
	default:
		return X509_V_ERR_CERT_REJECTED;
	}
}

static int on_verify(X509_STORE_CTX *store, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_session *s = SSL_get_ex_data(ssl, session_index());
	struct peer_chain p = { .n = 0 };
	int rc;

	(void)arg;
	s->why.text[0] = 0;
	rc = peer_chain_read(store, &p, &s->why);
	if (rc == 0)
		rc = judge(s, &p, &s->why);
	peer_chain_fini(&p);
	s->verdict = rc;
	s->peer_known = rc == 0;
	X509_STORE_CTX_set_error(store, verify_code(rc));
	return rc == 0;
}

/* ---- contexts */

static int put_one(SSL_CTX *ctx, struct slice der, bool leaf)
{
	const unsigned char *p = der.p;
	X509 *x = d2i_X509(NULL, &p, (long)der.n);
	int ok = 0;

	if (x && leaf)
		ok = SSL_CTX_use_certificate(ctx, x) == 1;
	else if (x)
		ok = SSL_CTX_add1_chain_cert(ctx, x) == 1;
	X509_free(x);
	return ok ? 0 : -1;
}

static int put_identity(SSL_CTX *ctx, const struct key *k, const struct slice *chain, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (put_one(ctx, chain[i], i == 0) < 0)
			return -1;
	return SSL_CTX_use_PrivateKey(ctx, k->pkey) == 1 ? 0 : -1;
}

static int configure(SSL_CTX *ctx)
{
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(
		ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_max_cert_list(ctx, (COSE_CHAIN_MAX + 1L) * (CERT_BYTES_MAX + 16));
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, on_verify, NULL);
	SSL_CTX_set_verify_depth(ctx, COSE_CHAIN_MAX + 1);
	return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
			       SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
			       SSL_CTX_set_ciphersuites(ctx,
				       "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") ==
				       1 &&
			       SSL_CTX_set1_groups_list(ctx, "X25519") == 1 &&
			       SSL_CTX_set1_sigalgs_list(ctx, "ed25519") == 1 &&
			       SSL_CTX_set_num_tickets(ctx, 0) == 1
		       ? 0
		       : -1;
}

static struct tls_context *context_new(void)
{
	struct tls_context *t = mem_new(struct tls_context);

	ERR_clear_error();
	session_index();
	t->skew_ms = SKEW_DEFAULT_MS;
	t->root = (struct buf)BUF_MAX(CERT_BYTES_MAX);
	t->ctx = SSL_CTX_new(TLS_method());
	if (t->ctx && configure(t->ctx) < 0) {
		SSL_CTX_free(t->ctx);
		t->ctx = NULL;
	}
	return t;
}

int tls_context_new(const struct signer *s, struct slice root_der, struct tls_context **out,
	struct errmsg *em)
{
	AUTO(tls_context) t = context_new();
	struct slice chain[COSE_CHAIN_MAX + 1];
	struct cert_info root;
	size_t n = 0;
	int rc = cert_info(root_der, &root, em);

	if (rc < 0)
		return err_wrap(em, rc, "the domain's root");
	for (; n < s->n_chain; n++)
		chain[n] = slice_of(&s->chain[n]);
	chain[n++] = root_der;
	if (!t->ctx || buf_add(&t->root, root_der.p, root_der.n) < 0 ||
		put_identity(t->ctx, s->key, chain, n) < 0)
		return ossl_fail(em, ERR_CONFIG, "cannot set up TLS");
	*out = STEAL(t);
	return 0;
}

int tls_context_renew(
	struct tls_context *t, const struct signer *s, struct slice root_der, struct errmsg *em)
{
	struct tls_context *fresh = NULL;
	SSL_CTX *old = t->ctx;
	int rc = tls_context_new(s, root_der, &fresh, em);

	if (rc < 0)
		return rc;
	must(fresh);
	t->ctx = fresh->ctx; /* sessions hold the old one by a count of their own */
	fresh->ctx = old;
	tls_context_free(fresh);
	return 0;
}

int tls_context_new_joiner(const struct key *k, const uint8_t fingerprint[DIGEST_BYTES],
	struct tls_context **out, struct errmsg *em)
{
	AUTO(tls_context) t = context_new();
	AUTOBUF der = BUF_MAX(CERT_BYTES_MAX);
	int64_t now = clock_wall_ms();
	int rc = cert_issue(k, (struct slice){ NULL, 0 }, CERT_JOINER, "joiner", 0,
		k->public_key, now > JOINER_LIFE_MS ? now - JOINER_LIFE_MS : 0,
		now + JOINER_LIFE_MS, &der, em);
	struct slice chain = slice_of(&der);

	if (rc < 0)
		return rc;
	t->joiner = true;
	memcpy(t->fingerprint, fingerprint, DIGEST_BYTES);
	if (!t->ctx || put_identity(t->ctx, k, &chain, 1) < 0)
		return ossl_fail(em, ERR_CONFIG, "cannot set up TLS");
	*out = STEAL(t);
	return 0;
}

void tls_context_free(struct tls_context *t)
{
	if (!t)
		return;
	SSL_CTX_free(t->ctx);
	buf_fini(&t->root);
	free(t);
}

void tls_context_trust(struct tls_context *t, const struct revocation *r, int64_t skew_ms)
{
	t->revocation = r;
	t->skew_ms = skew_ms;
}

/* ---- sessions */

struct tls_session *tls_session_new(struct tls_context *t, bool server)
{
	struct tls_session *s = mem_new(struct tls_session);

	must(!(server && t->joiner));
	s->context = t;
	s->server = server;
	s->peer_root = (struct buf)BUF_MAX(CERT_BYTES_MAX);
	s->ssl = SSL_new(t->ctx);
	s->from_peer = BIO_new(BIO_s_mem());
	s->to_peer = BIO_new(BIO_s_mem());
	must(s->ssl && s->from_peer && s->to_peer);
	BIO_set_mem_eof_return(s->from_peer, -1);
	BIO_set_mem_eof_return(s->to_peer, -1);
	SSL_set_bio(s->ssl, s->from_peer, s->to_peer);
	must(SSL_set_ex_data(s->ssl, session_index(), s) == 1);
	if (server)
		SSL_set_accept_state(s->ssl);
	else
		SSL_set_connect_state(s->ssl);
	return s;
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	SSL_free(s->ssl);
	buf_fini(&s->peer_root);
	free(s);
}

/* Move what OpenSSL wants to send to the caller. */
static int flush(struct tls_session *s, struct buf *wire)
{
	char *p;
	long n = BIO_get_mem_data(s->to_peer, &p);
	int rc = n > 0 ? buf_add(wire, p, (size_t)n) : 0;

	if (rc == 0 && n > 0)
		(void)BIO_reset(s->to_peer);
	return rc;
}

/* What the peer's alert, or OpenSSL's complaint, means to people. */
static const struct {
	int reason, rc;
	const char *text;
} reasons[] = {
	{ SSL_R_TLSV1_ALERT_UNKNOWN_CA, ERR_UNTRUSTED,
		"the peer belongs to another domain: it does not trust our certificate" },
	{ SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, ERR_EXPIRED,
		"the peer says that our certificate has expired; renew it, or check the "
		"clocks" },
	{ SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, ERR_REVOKED,
		"the peer says that our certificate has been revoked" },
	{ SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, ERR_UNTRUSTED,
		"the peer refused our certificate: malformed or not valid yet; check the "
		"clocks" },
	{ SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, ERR_UNTRUSTED,
		"the peer refused our certificate" },
	{ SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, ERR_UNTRUSTED,
		"the peer does not take certificates like ours" },
	{ SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED, ERR_UNTRUSTED,
		"the peer wants a certificate from us" },
	{ SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, ERR_UNTRUSTED,
		"the peer showed no certificate" },
	{ SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, ERR_VERSION, "the peer does not take TLS 1.3" },
	{ SSL_R_UNSUPPORTED_PROTOCOL, ERR_VERSION, "the peer does not speak TLS 1.3" },
	{ SSL_R_WRONG_VERSION_NUMBER, ERR_MALFORMED, "the peer does not speak TLS" },
	{ SSL_R_HTTP_REQUEST, ERR_MALFORMED, "the peer speaks HTTP, not TLS" },
	{ SSL_R_NO_SHARED_CIPHER, ERR_VERSION, "no cipher in common" },
	{ SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, ERR_VERSION, "the peer refused our ciphers" },
};

/* Remember the failure: a session that failed once answers the same from then on. */
static int fail(struct tls_session *s, int rc, const char *text)
{
	s->failed = err_set(&s->why, rc, "%s", text);
	ERR_clear_error();
	return rc;
}

static int fail_by_openssl(struct tls_session *s)
{
	unsigned long e = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(e);

	if (s->verdict < 0) { /* our own, and `why` says it better */
		s->failed = s->verdict;
		ERR_clear_error();
		return s->failed;
	}
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == reasons[i].reason)
			return fail(s, reasons[i].rc, reasons[i].text);
	s->failed = err_set(&s->why, ERR_MALFORMED, "TLS: %s", reason ? reason : "broken off");
	ERR_clear_error();
	return s->failed;
}

/* What a call of OpenSSL's that did not succeed means: 0 for "needs more bytes". */
static int result(struct tls_session *s, int ret)
{
	switch (SSL_get_error(s->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return fail(s, ERR_CLOSED, "the peer closed the connection");
	default:
		return fail_by_openssl(s);
	}
}

static int shake(struct tls_session *s)
{
	ERR_clear_error();
	int ret = SSL_do_handshake(s->ssl);

	if (ret != 1)
		return result(s, ret);
	/* belt and braces: without a verdict of ours nobody gets in */
	if (!s->peer_known)
		return fail(s, ERR_UNTRUSTED, "the peer was not identified");
	s->ready = true;
	return 0;
}

static int drain(struct tls_session *s, struct buf *plain)
{
	uint8_t part[PLAIN_BYTES];

	/* Asking once more than there is costs an error made and dropped. */
	while (SSL_pending(s->ssl) > 0 || BIO_ctrl_pending(s->from_peer) > 0) {
		ERR_clear_error();
		int n = SSL_read(s->ssl, part, sizeof(part));

		if (n <= 0)
			return result(s, n);
		if (buf_add(plain, part, (size_t)n) < 0)
			return fail(s, ERR_TOO_LARGE, "more than we can take at once");
	}
	return 0;
}

static int tell(const struct tls_session *s, int rc, struct errmsg *em)
{
	return rc < 0 ? err_set(em, rc, "%s", s->failed ? s->why.text : err_text(rc)) : 0;
}

int tls_feed(struct tls_session *s, const void *p, size_t n, struct buf *plain,
	struct buf *wire, struct errmsg *em)
{
	int rc = s->failed, flushed;

	if (rc < 0)
		return tell(s, rc, em);
	if (n > INT_MAX || (n && BIO_write(s->from_peer, p, (int)n) != (int)n))
		return tell(s, fail(s, ERR_NOMEM, "out of memory"), em);
	if (!s->ready)
		rc = shake(s);
	if (rc == 0 && s->ready)
		rc = drain(s, plain);
	flushed = flush(s, wire); /* after a failure too: the alert tells the peer why */
	if (rc == 0 && flushed < 0)
		rc = fail(s, flushed, "more to send than we can hold");
	return tell(s, rc, em);
}

int tls_start(struct tls_session *s, struct buf *wire, struct errmsg *em)
{
	int rc = s->failed;

	if (rc == 0 && !s->ready)
		rc = shake(s);
	if (rc == 0)
		rc = flush(s, wire);
	return tell(s, rc, em);
}

int tls_send(
	struct tls_session *s, const void *p, size_t n, struct buf *wire, struct errmsg *em)
{
	size_t put;
	int rc;

	if (s->failed)
		return tell(s, s->failed, em);
	if (!s->ready)
		return err_set(em, ERR_STATE, "the handshake is not over");
	if (n == 0)
		return 0;
	ERR_clear_error();
	if (SSL_write_ex(s->ssl, p, n, &put) != 1 || put != n)
		return tell(s, fail_by_openssl(s), em);
	rc = flush(s, wire);
	if (rc < 0) /* records that got lost can't be made up for */
		rc = fail(s, rc, "more to send than we can hold");
	return tell(s, rc, em);
}

int tls_close(struct tls_session *s, struct buf *wire)
{
	ERR_clear_error();
	if (s->ready && (s->failed == 0 || s->failed == ERR_CLOSED))
		SSL_shutdown(s->ssl);
	ERR_clear_error();
	if (!s->failed)
		fail(s, ERR_CLOSED, "the connection was closed");
	return flush(s, wire);
}

bool tls_ready(const struct tls_session *s)
{
	return s->ready;
}

int tls_peer(const struct tls_session *s, struct cert_info *out)
{
	if (!s->ready || !s->peer_known)
		return ERR_STATE;
	*out = s->peer;
	return 0;
}

int tls_peer_root(const struct tls_session *s, struct buf *der)
{
	const struct buf *root = s->context->joiner ? &s->peer_root : &s->context->root;

	if (!s->ready)
		return ERR_STATE;
	return buf_add(der, root->data, root->len);
}
