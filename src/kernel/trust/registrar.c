/*
 * Enrolment, the Directory's entry of this kernel, and the revocation list. The registrar holds
 * an intermediate certificate that may issue role kernel only (doc/protocol.md, "Enrolment").
 */

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/trust/trust.h"

#define CERT_LIFE_MS     ((int64_t)365 * 86400000)
#define TOKEN_DEFAULT_MS 3600000
#define TOKEN_MOST_MS    ((int64_t)30 * 86400000)
#define CERT_BACKDATE_MS 300000
#define STRANGERS_PER_S  10

/* ---- tokens */

static void put_row(struct store_txn *t, enum store_table tb, struct slice key,
	struct tos_value *m, int64_t expires_ms)
{
	uint8_t *bytes = NULL;
	size_t n;

	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, tb, key.p, key.n, bytes, n, expires_ms);
	free(bytes);
	tos_value_free(m);
}

static struct tos_value *get_row(struct kernel *k, enum store_table tb, struct slice key)
{
	AUTOBUF body = BUF_MAX((size_t)1 << 20);
	struct tos_value *m = NULL;

	if (store_get(k->store, tb, key.p, key.n, &body, NULL) == 0)
		tos_decode(body.data, body.len, 0, &m);
	return m;
}

struct enroll_act {
	struct request *rq;
	struct buf text;
	struct tos_value *serials; /* of the certificates that the name has so far */
};

static struct tos_value *serials_of(const struct tos_value *row);
static struct tos_value *row_with(struct tos_value *row, struct slice der);

static void token_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct enroll_act *a = arg;
	struct tos_value *m;

	if (rc < 0) {
		request_fail(a->rq, rc, "%s", err_show(rc, em));
	} else {
		m = tos_map();
		tos_set(m, "token", tos_text_n((const char *)a->text.data, a->text.len));
		tos_set(m, "serials", STEAL(a->serials));
		request_ok(a->rq, m);
	}
	tos_value_free(a->serials);
	buf_fini(&a->text);
}

static void token_addresses(struct kernel *k, const struct tos_value *args, struct token *t)
{
	const struct tos_value *list = tos_get(args, "addresses");

	for (size_t i = 0; i < tos_len(list) && t->n_addresses < ARRAY_LEN(t->addresses); i++) {
		const char *a = tos_as_text(tos_at(list, i), "");

		if (a[0] && strlen(a) < sizeof(t->addresses[0]))
			snprintf(t->addresses[t->n_addresses++], sizeof(t->addresses[0]), "%s",
				a);
	}
	if (t->n_addresses == 0 && k->config.advertise[0])
		snprintf(t->addresses[t->n_addresses++], sizeof(t->addresses[0]), "%s",
			k->config.advertise);
}

/* This is the registrar, and that may be a kernel's name; false: the request has been failed. */
static bool registrar_for(struct kernel *k, struct request *rq, const char *name)
{
	if (!k->registrar)
		request_fail(rq, ERR_UNSUPPORTED, "%s is not the registrar; that is %s",
			k->config.name, k->config.registrar);
	else if (!name_kernel_ok(name))
		request_fail(rq, ERR_NAME, "%s is not a kernel's name", name);
	else
		return true;
	return false;
}

void registrar_enroll_act(
	struct kernel *k, struct request *rq, const char *name, const struct tos_value *args)
{
	struct token token = { .n_addresses = 0 };
	int64_t life = tos_get_int(args, "expires_ms", TOKEN_DEFAULT_MS);
	struct tos_value *known, *serials, *m;
	struct enroll_act *a;
	struct store_txn *t;
	uint8_t digest[DIGEST_BYTES];
	int rc;

	if (!registrar_for(k, rq, name))
		return;
	known = get_row(k, T_ENROLLED, slice_text(name));
	if ((known || strcmp(name, k->config.name) == 0 || links_find(k->links, name)) &&
		!tos_get_bool(args, "replace", false)) {
		tos_value_free(known);
		request_fail(rq, ERR_EXISTS,
			"%s is enrolled already; say --replace to give its name to a new key",
			name);
		return;
	}
	serials = serials_of(known);
	tos_value_free(known);
	if (links_find(k->links, name)) /* one that was made beside the root */
		tos_push(serials, tos_bytes(link_cert(links_find(k->links, name))->serial,
					  link_cert(links_find(k->links, name))->serial_len));
	memcpy(token.fingerprint, k->domain, DIGEST_BYTES);
	random_bytes(token.secret, sizeof(token.secret));
	snprintf(token.name, sizeof(token.name), "%s", name);
	if (life <= 0 || life > TOKEN_MOST_MS)
		life = TOKEN_DEFAULT_MS;
	token.expires_ms = clock_wall_ms() + life;
	token_addresses(k, args, &token);
	a = mem_new(struct enroll_act);
	a->rq = rq;
	a->serials = serials;
	rc = token_text(&token, &a->text);
	if (rc < 0) {
		request_fail(rq, rc, "the token could not be made");
		tos_value_free(serials);
		free(a);
		return;
	}
	digest_bytes(token.secret, sizeof(token.secret), digest);
	m = tos_map();
	tos_set(m, "name", tos_text(name));
	tos_set(m, "expires", tos_int(token.expires_ms));
	tos_set(m, "replace", tos_bool(tos_get_bool(args, "replace", false)));
	t = store_begin(k->store);
	put_row(t, T_TOKEN, (struct slice){ digest, sizeof(digest) }, m,
		token.expires_ms + 86400000);
	m = tos_map();
	tos_set(m, "name", tos_text(name));
	audit_event(k, t, "token-made", m);
	rc = store_commit(t, token_saved, a);
	if (rc < 0) {
		struct errmsg em = { "" };

		token_saved(a, rc, &em);
	}
}

/* ---- ENROLL */

struct enrolling {
	struct kernel *k;
	uint8_t token[DIGEST_BYTES];
	struct request *rq;
	struct tos_value *answer;
};

static void enrolled(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct enrolling *e = arg;

	map_del(e->k->acting, e->token, sizeof(e->token));
	if (rc < 0) {
		tos_value_free(e->answer);
		request_fail(e->rq, rc, "%s", err_show(rc, em));
		return;
	}
	request_ok(e->rq, e->answer);
}

static struct tos_value *enrol_answer(struct kernel *k, struct slice der)
{
	struct tos_value *m = tos_map(), *chain = tos_array();

	tos_push(chain, tos_bytes(der.p, der.n));
	for (size_t i = 0; i < k->registrar->n_chain; i++)
		tos_push(chain,
			tos_bytes(k->registrar->chain[i].data, k->registrar->chain[i].len));
	tos_set(m, "chain", chain);
	tos_set(m, "root", tos_bytes(k->root_der.data, k->root_der.len));
	tos_set(m, "registrar", tos_text(k->config.name));
	tos_set(m, "revocation",
		k->revocation_cose.n ? tos_bytes(k->revocation_cose.p, k->revocation_cose.n)
				     : tos_nil());
	return m;
}

static int enroll_check(struct kernel *k, const uint8_t digest[DIGEST_BYTES],
	struct tos_value *token, const char *name, const uint8_t *key, struct errmsg *em)
{
	struct tos_value *known;
	bool taken;
	size_t n;
	const uint8_t *spent = tos_get_bytes(token, "public_key", &n);

	if (!token)
		return err_set(
			em, ERR_DENIED, "the token is not known here, or has been used up");
	if (strcmp(tos_get_text(token, "name", ""), name) != 0)
		return err_set(em, ERR_DENIED, "the token is for another name");
	if (tos_get_int(token, "expires", 0) < clock_wall_ms())
		return err_set(em, ERR_EXPIRED,
			"the token has expired; make a new one with tos enroll");
	if (spent && (n != 32 || memcmp(spent, key, 32) != 0))
		return err_set(em, ERR_REPLAY, "the token was used by another key");
	if (map_find(k->acting, digest, DIGEST_BYTES))
		return err_set(em, ERR_REPLAY, "the token is just being used");
	if (spent)
		return 0;
	/* Two tokens for one name may be out: the second needs to have been made with
	 * --replace. */
	known = get_row(k, T_ENROLLED, slice_text(name));
	taken = known && !tos_get_bool(token, "replace", false);
	tos_value_free(known);
	return taken ? err_set(em, ERR_EXISTS, "%s has been enrolled since the token was made",
			       name)
		     : 0;
}

static int issue(struct kernel *k, const char *name, const uint8_t key[32], struct buf *der,
	struct errmsg *em)
{
	int64_t now = clock_wall_ms();
	int64_t until = now + CERT_LIFE_MS;

	if (until > k->registrar->info.not_after_ms)
		until = k->registrar->info.not_after_ms;
	return cert_issue(k->registrar->key,
		(struct slice){ k->registrar->chain[0].data, k->registrar->chain[0].len },
		CERT_KERNEL, name, 0, key, now - CERT_BACKDATE_MS, until, der, em);
}

/* By whoever can reach this host: so many a second, or strangers would fill the store. */
static void enrolment_refused(struct kernel *k, struct tos_value *m)
{
	static struct log_rate rate;

	if (log_rate_ok(&rate, STRANGERS_PER_S)) {
		if (rate.dropped)
			tos_set(m, "dropped_before", tos_int(rate.dropped));
		rate.dropped = 0;
		audit_event(k, NULL, "enrolment-refused", m);
		return;
	}
	metric_add(k->metrics, "audit_rows_dropped_total", NULL, 1);
	tos_value_free(m);
}

static void enroll_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	uint8_t digest[DIGEST_BYTES];
	struct tos_value *token, *m;
	struct errmsg em = { "" };
	struct enrolling *e;
	struct store_txn *t;
	AUTOBUF der = BUF_MAX(CERT_BYTES_MAX);
	size_t n_secret, n_key, n;
	const uint8_t *secret = tos_get_bytes(rq->args, "secret", &n_secret);
	const uint8_t *key = tos_get_bytes(rq->args, "public_key", &n_key);
	const uint8_t *before;
	int rc;

	if (!k->registrar || !secret || n_key != 32 || !name_kernel_ok(name)) {
		request_fail(rq, k->registrar ? ERR_MALFORMED : ERR_UNSUPPORTED,
			k->registrar ? "ENROLL lacks name, secret or key"
				     : "this kernel is not the registrar");
		return;
	}
	digest_bytes(secret, n_secret, digest);
	token = get_row(k, T_TOKEN, (struct slice){ digest, sizeof(digest) });
	rc = enroll_check(k, digest, token, name, key, &em);
	before = tos_get_bytes(token, "certificate", &n);
	if (rc == 0 && before) { /* a repeat with the same key: the same certificate */
		request_ok(rq, enrol_answer(k, (struct slice){ before, n }));
		tos_value_free(token);
		return;
	}
	if (rc == 0)
		rc = issue(k, name, key, &der, &em);
	m = tos_map();
	tos_set(m, "name", tos_text(name));
	if (rc < 0) {
		tos_set(m, "text", tos_text(err_show(rc, &em)));
		enrolment_refused(k, m);
		tos_value_free(token);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	e = mem_new(struct enrolling);
	e->k = k;
	e->rq = rq;
	memcpy(e->token, digest, sizeof(digest));
	map_put(k->acting, e->token, sizeof(e->token), e);
	e->answer = enrol_answer(k, slice_buf(&der));
	t = store_begin(k->store);
	/* The token is spent in the store before the certificate is given out. */
	tos_set(token, "public_key", tos_bytes(key, 32));
	tos_set(token, "certificate", tos_bytes(der.data, der.len));
	put_row(t, T_TOKEN, (struct slice){ digest, sizeof(digest) }, token,
		clock_wall_ms() + 30 * (int64_t)86400000);
	put_row(t, T_ENROLLED, slice_text(name),
		row_with(get_row(k, T_ENROLLED, slice_text(name)), slice_buf(&der)), 0);
	audit_event(k, t, "enrolled", m);
	rc = store_commit(t, enrolled, e);
	if (rc < 0)
		enrolled(e, rc, &em);
}

/* ---- RENEW */

/* Every certificate that was ever given out for a name and has not run out: removing it revokes
 * them all. Takes nothing; NULL row: none is known. */
static struct tos_value *serials_of(const struct tos_value *row)
{
	const struct tos_value *before = tos_get(row, "before");
	struct tos_value *out = tos_array();
	int64_t now = clock_wall_ms();
	struct cert_info info;
	size_t n;
	const uint8_t *der = tos_get_bytes(row, "certificate", &n);

	if (der && cert_info((struct slice){ der, n }, &info, NULL) == 0)
		tos_push(out, tos_bytes(info.serial, info.serial_len));
	for (size_t i = 0; i < tos_len(before); i++)
		if (tos_get_int(tos_at(before, i), "expires", 0) > now)
			tos_push(out, tos_value_copy(tos_get(tos_at(before, i), "serial")));
	return out;
}

/* The certificate that is being replaced, kept until it runs out. */
static void before_add(struct tos_value *row, const struct cert_info *old)
{
	const struct tos_value *was = tos_get(row, "before");
	struct tos_value *list = tos_array(), *m = tos_map();
	int64_t now = clock_wall_ms();

	for (size_t i = 0; i < tos_len(was); i++)
		if (tos_get_int(tos_at(was, i), "expires", 0) > now)
			tos_push(list, tos_value_copy(tos_at(was, i)));
	tos_set(m, "serial", tos_bytes(old->serial, old->serial_len));
	tos_set(m, "expires", tos_int(old->not_after_ms));
	tos_push(list, m);
	tos_set(row, "before", list);
}

/* A name's row with a new certificate; the one that it replaces is not forgotten. Takes row; NULL: there
 * is none so far. */
static struct tos_value *row_with(struct tos_value *row, struct slice der)
{
	struct cert_info was;
	size_t n;
	const uint8_t *old = tos_get_bytes(row, "certificate", &n);

	if (!row)
		row = tos_map();
	if (old && cert_info((struct slice){ old, n }, &was, NULL) == 0)
		before_add(row, &was);
	tos_set(row, "certificate", tos_bytes(der.p, der.n));
	tos_set(row, "wall", tos_int(clock_wall_ms()));
	return row;
}

/* An earlier RENEW was answered with it, and the answer was lost, or is not used yet: asking often gives
 * nobody certificates that the row does not name. */
static bool given_already(
	const struct cert_info *old, const struct tos_value *row, struct slice *der)
{
	struct cert_info now;

	der->p = tos_get_bytes(row, "certificate", &der->n);
	return der->p && cert_info(*der, &now, NULL) == 0 &&
	       memcmp(now.public_key, old->public_key, sizeof(now.public_key)) == 0 &&
	       now.not_after_ms > old->not_after_ms &&
	       clock_wall_ms() < now.not_before_ms + (now.not_after_ms - now.not_before_ms) / 2;
}

static bool row_names(const struct tos_value *row, const struct cert_info *who)
{
	struct cert_info now;
	size_t n;
	const uint8_t *der = tos_get_bytes(row, "certificate", &n);

	return der && cert_info((struct slice){ der, n }, &now, NULL) == 0 &&
	       now.serial_len == who->serial_len &&
	       memcmp(now.serial, who->serial, now.serial_len) == 0;
}

/* The certificate that the asking kernel shows on its link, or our own. */
static const struct cert_info *renewing(struct kernel *k, const struct request *rq)
{
	struct link *l = rq->from.kernel[0] ? links_find(k->links, rq->from.kernel) : NULL;

	if (rq->from.cls != ORIGIN_KERNEL)
		return NULL;
	return rq->from.kernel[0] ? (l ? link_cert(l) : NULL) : &k->signer->info;
}

/* Whoever took the name over since has its own key; and a removed name has no row, but is revoked
 * and has no link. */
static int renew_check(const struct cert_info *old, const struct tos_value *row,
	const uint8_t *key, struct errmsg *em)
{
	struct cert_info now;
	size_t n;
	const uint8_t *der = tos_get_bytes(row, "certificate", &n);

	if (memcmp(old->public_key, key, sizeof(old->public_key)) != 0)
		return err_set(em, ERR_DENIED, "a certificate is renewed for its own key");
	if (der && cert_info((struct slice){ der, n }, &now, NULL) == 0 &&
		memcmp(now.public_key, key, sizeof(now.public_key)) != 0)
		return err_set(em, ERR_DENIED, "another host has the name %s now", old->name);
	if (clock_wall_ms() < old->not_before_ms + (old->not_after_ms - old->not_before_ms) / 2)
		return err_set(em, ERR_STATE, "half of its life is still to come");
	return 0;
}

static void renew_verb(struct kernel *k, struct request *rq)
{
	const struct cert_info *old = renewing(k, rq);
	AUTOBUF der = BUF_MAX(CERT_BYTES_MAX);
	struct tos_value *row, *m;
	struct errmsg em = { "" };
	struct enrolling *e;
	struct store_txn *t;
	struct slice given;
	uint8_t name[DIGEST_BYTES];
	size_t n_key;
	const uint8_t *key = tos_get_bytes(rq->args, "public_key", &n_key);
	int rc;

	if (!k->registrar || !old || !key || n_key != 32) {
		request_fail(rq,
			!k->registrar ? ERR_UNSUPPORTED
			: !old        ? ERR_DENIED
				      : ERR_MALFORMED,
			!k->registrar ? "this kernel is not the registrar"
			: !old        ? "only a kernel renews its certificate"
				      : "RENEW lacks the key");
		return;
	}
	row = get_row(k, T_ENROLLED, slice_text(old->name));
	digest_bytes(old->name, strlen(old->name), name);
	rc = renew_check(old, row, key, &em);
	if (rc == 0 && given_already(old, row, &given)) {
		request_ok(rq, enrol_answer(k, given));
		tos_value_free(row);
		return;
	}
	if (rc == 0 && map_find(k->acting, name, sizeof(name)))
		rc = err_set(&em, ERR_STATE, "it is just being renewed; ask again");
	if (rc == 0)
		rc = issue(k, old->name, key, &der, &em);
	m = tos_map();
	tos_set(m, "name", tos_text(old->name));
	if (rc < 0) {
		tos_set(m, "text", tos_text(err_show(rc, &em)));
		audit_refusal(k, NULL, rq->from.kernel, "renewal-refused", m);
		tos_value_free(row);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	if (!row)
		row = tos_map(); /* made beside the root, without a token */
	if (!row_names(row, old))
		before_add(row, old);
	row = row_with(row, slice_buf(&der));
	e = mem_new(struct enrolling);
	e->k = k;
	e->rq = rq;
	memcpy(e->token, name, sizeof(name));
	map_put(k->acting, e->token, sizeof(e->token), e);
	e->answer = enrol_answer(k, slice_buf(&der));
	t = store_begin(k->store);
	put_row(t, T_ENROLLED, slice_text(old->name), row, 0);
	audit_event(k, t, "renewed", m);
	rc = store_commit(t, enrolled, e);
	if (rc < 0)
		enrolled(e, rc, &em);
}

const struct verb registrar_verbs[] = {
	{ "ENROLL", enroll_verb },
	{ "RENEW", renew_verb },
	{ NULL, NULL },
};

struct removing {
	struct kernel *k;
	struct request *rq;
	char name[64];
	struct tos_value *serials;
};

static void on_removed(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct removing *r = arg;
	struct tos_value *args, *m;

	if (rc < 0) {
		tos_value_free(r->serials);
		request_fail(r->rq, rc, "%s", err_show(rc, em));
		return;
	}
	args = tos_map();
	tos_set(args, "name", tos_text(r->name));
	kernel_notify(r->k, r->k->config.name, "Directory", "REMOVE", args);
	m = tos_map();
	tos_set(m, "kernel", tos_text(r->name));
	tos_set(m, "serials", r->serials);
	request_ok(r->rq, m);
}

void registrar_remove_act(struct kernel *k, struct request *rq, const char *name)
{
	struct tos_value *row, *m;
	struct errmsg em = { "" };
	struct removing *r;
	struct store_txn *t;
	int rc;

	if (!registrar_for(k, rq, name))
		return;
	r = mem_new(struct removing);
	r->k = k;
	r->rq = rq;
	snprintf(r->name, sizeof(r->name), "%s", name);
	row = get_row(k, T_ENROLLED, slice_text(name));
	r->serials = serials_of(row);
	tos_value_free(row);
	t = store_begin(k->store);
	store_del(t, T_ENROLLED, name, strlen(name));
	m = tos_map();
	tos_set(m, "name", tos_text(name));
	audit_event(k, t, "kernel-removed", m);
	rc = store_commit(t, on_removed, r);
	if (rc < 0)
		on_removed(r, rc, &em);
}

/* ---- the Directory */

static void on_registered(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	(void)arg;
	(void)elements;
	if (rc < 0 && !k->stopping)
		log_notice("the Directory did not take our address",
			KV_STR("registrar", k->config.registrar), KV_STR("error", err_word(rc)),
			KV_STR("reason", text));
}

void directory_register(struct kernel *k)
{
	struct tos_value *args, *list;

	if (!k->config.registrar[0])
		return;
	args = tos_map();
	list = tos_array();
	tos_set(args, "name", tos_text(k->config.name));
	if (k->config.advertise[0])
		tos_push(list, tos_text(k->config.advertise));
	tos_set(args, "addresses", list);
	kernel_call(k, k->config.registrar, "Directory", "REGISTER", args, 5000, on_registered,
		NULL);
}

/* ---- revocation */

bool cert_revoked(const struct kernel *k, const struct cert_info *who)
{
	return k->revocation && revocation_has(k->revocation, who->serial, who->serial_len);
}

int revocation_accept(struct kernel *k, struct slice bytes, struct errmsg *em)
{
	struct revocation *r = NULL;
	struct store_txn *t;
	struct tos_value *m;
	int rc = revocation_decode(
		bytes, (struct slice){ k->root_der.data, k->root_der.len }, &r, em);

	if (rc < 0)
		return rc;
	if (k->revocation && revocation_number(r) <= revocation_number(k->revocation)) {
		bool same = revocation_number(r) == revocation_number(k->revocation);

		revocation_free(r);
		return same ? 0
			    : err_set(em, ERR_REPLAY,
				      "an older revocation list than the one known here");
	}
	if (k->tls)
		tls_context_trust(k->tls, r, k->config.skew_ms);
	revocation_free(k->revocation);
	k->revocation = r;
	blob_set(&k->revocation_cose, bytes);
	if (!k->ready)
		return 0;
	m = tos_map();
	tos_set(m, "number", tos_int((int64_t)revocation_number(r)));
	t = store_begin(k->store);
	store_put(t, T_TRUST, "revocation", 10, bytes.p, bytes.n, 0);
	audit_event(k, t, "revocation-list", m);
	store_commit(t, NULL, NULL);
	log_notice("revocation list", KV_INT("number", revocation_number(r)),
		KV_INT("revoked", revocation_count(r)));
	kernel_revoked(k);
	/* Pass it on to whoever is linked; each takes it only when it is new there. */
	struct link *l = NULL;

	while ((l = links_next(k->links, l)))
		if (link_kind(l) == LINK_KERNEL) {
			struct tos_value *args = tos_map();

			tos_set(args, "list", tos_bytes(bytes.p, bytes.n));
			kernel_notify(k, link_name(l), "Kernel", "REVOKED", args);
		}
	return 0;
}

int registrar_init(struct kernel *k, struct errmsg *em)
{
	AUTOBUF list = BUF_MAX((size_t)16 << 20);
	int rc = store_get(k->store, T_TRUST, "revocation", 10, &list, em);

	if (rc == 0)
		rc = revocation_accept(k, slice_buf(&list), em);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}
