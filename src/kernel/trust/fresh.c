/*
 * How old the revocation list may be (doc/protocol.md, "Revocation"; doc/decisions/freshness.md).
 *
 * The root signs lists, and its key is away; so the registrar's kernel signs from time to time that
 * a list's number is still the highest. It can hold a new list back for as long as it lives, never
 * make one. What it signed is passed on by any kernel. A kernel that has heard neither for longer
 * than revocation.max_age admits no carriers.
 */
#include "kernel/trust/trust.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define ASK_MS         3000 /* an offer may wait for it */
#define ASKING_MAX     8
#define AGAIN_MS       1000
#define AGAIN_MOST_MS  600000
#define WAITING_MAX    256
#define SIGN_EACH_MS   1000
#define STATEMENT_KIND "current"

struct waiting_offer {
	struct list node;
	struct request *rq;
	verb_fn *fn;
};

static bool is_registrar(const struct kernel *k)
{
	return strcmp(k->config.registrar, k->config.name) == 0;
}

static void list_digest(const struct kernel *k, uint8_t out[DIGEST_BYTES])
{
	memset(out, 0, DIGEST_BYTES);
	if (k->revocation_cose.n)
		digest_bytes(k->revocation_cose.p, k->revocation_cose.n, out);
}

static uint64_t list_number(const struct kernel *k)
{
	return k->revocation ? revocation_number(k->revocation) : 0;
}

int64_t fresh_age_ms(const struct kernel *k)
{
	int64_t now = clock_wall_ms(), as_of = k->fresh_ms;

	if (is_registrar(k))
		return 0;
	if (k->revocation && revocation_issued_ms(k->revocation) > as_of)
		as_of = revocation_issued_ms(k->revocation);
	return now > as_of ? now - as_of : 0;
}

bool fresh_enough(const struct kernel *k, struct errmsg *em)
{
	int64_t age = fresh_age_ms(k);

	if (!k->config.revocation_max_ms || age <= k->config.revocation_max_ms)
		return true;
	err_set(em, ERR_EXPIRED,
		"%s admits no carriers: nobody has confirmed its revocation list for longer than "
		"revocation.max_age; it needs a link to the registrar, or to a kernel that has one",
		k->config.name);
	return false;
}

/* ---- statements */

static void statement_make(struct kernel *k)
{
	AUTOBUF out = BUF_MAX((size_t)64 << 10);
	struct tos_value *m = tos_map();
	uint8_t digest[DIGEST_BYTES], *bytes = NULL;
	int64_t now = clock_wall_ms();
	struct errmsg em = { "" };
	size_t n;

	list_digest(k, digest);
	tos_set(m, "list", tos_bytes(digest, sizeof(digest)));
	tos_set(m, "number", tos_int((int64_t)list_number(k)));
	tos_set(m, "wall", tos_int(now));
	if (tos_encode(m, &bytes, &n) == 0 &&
		cose_sign(k->signer, STATEMENT_KIND, (struct slice){ bytes, n }, &out, &em) ==
			0) {
		blob_set(&k->fresh_cose, slice_buf(&out));
		k->fresh_ms = now;
		k->fresh_number = list_number(k);
	}
	free(bytes);
	tos_value_free(m);
}

/* What the registrar signed, about the list that is here. ERR_AGAIN: about a later one. */
static int statement_read(
	struct kernel *k, struct slice bytes, int64_t *wall_ms, struct errmsg *em)
{
	struct tos_value *m = NULL;
	struct cert_info who;
	struct trust trust;
	struct cose cose;
	const uint8_t *list;
	uint8_t digest[DIGEST_BYTES];
	size_t n;
	int64_t number;
	int rc;

	kernel_trust(k, &trust);
	rc = cose_verify(&trust, STATEMENT_KIND, bytes, &cose, &who, em);
	if (rc == 0 && (who.kind != CERT_KERNEL || strcmp(who.name, k->config.registrar) != 0))
		rc = err_set(em, ERR_DENIED, "%s is not the registrar", who.name);
	if (rc == 0)
		rc = tos_decode(cose.payload.p, cose.payload.n, 4096, &m);
	if (rc < 0)
		return rc;
	list = tos_get_bytes(m, "list", &n);
	number = tos_get_int(m, "number", -1);
	*wall_ms = tos_get_int(m, "wall", -1);
	list_digest(k, digest);
	if (!list || n != DIGEST_BYTES || tos_len(m) != 3 || number < 0 || *wall_ms < 0)
		rc = err_set(em, ERR_MALFORMED, "not a statement about a revocation list");
	else if (*wall_ms > trust.now_ms + trust.skew_ms)
		rc = err_set(em, ERR_NOT_YET, "it is of a time to come; check the clocks");
	else if ((uint64_t)number != list_number(k) || memcmp(list, digest, n) != 0)
		rc = err_set(em, ERR_REPLAY, "it is about list %lld, not %llu",
			(long long)number, (unsigned long long)list_number(k));
	tos_value_free(m);
	return rc;
}

static int statement_accept(struct kernel *k, struct slice bytes, bool keep, struct errmsg *em)
{
	struct store_txn *t;
	int64_t wall;
	int rc = statement_read(k, bytes, &wall, em);

	if (rc < 0 || wall <= k->fresh_ms)
		return rc;
	k->fresh_ms = wall;
	k->fresh_number = list_number(k);
	blob_set(&k->fresh_cose, bytes);
	if (keep) {
		t = store_begin(k->store);
		store_put(t, T_TRUST, "current", 7, bytes.p, bytes.n, 0);
		store_commit(t, NULL, NULL);
	}
	return 0;
}

void fresh_load(struct kernel *k)
{
	AUTOBUF bytes = BUF_MAX((size_t)64 << 10);

	list_init(&k->fresh_waiting);
	if (store_get(k->store, T_TRUST, "current", 7, &bytes, NULL) == 0)
		statement_accept(k, slice_buf(&bytes), false, NULL);
}

void fresh_answer(struct kernel *k, struct request *rq)
{
	struct tos_value *out = tos_map();

	if (is_registrar(k) &&
		(!k->fresh_cose.n || clock_wall_ms() - k->fresh_ms > SIGN_EACH_MS ||
			k->fresh_number != list_number(k)))
		statement_make(k);
	if (k->revocation_cose.n)
		tos_set(out, "list", tos_bytes(k->revocation_cose.p, k->revocation_cose.n));
	if (k->fresh_cose.n && k->fresh_number == list_number(k))
		tos_set(out, "current", tos_bytes(k->fresh_cose.p, k->fresh_cose.n));
	request_ok(rq, out);
}

/* ---- asking */

static void waiting_flush(struct kernel *k)
{
	struct errmsg em = { "" };

	if (k->fresh_asking && !fresh_enough(k, NULL))
		return; /* another may still know better */
	while (!list_empty(&k->fresh_waiting)) {
		struct waiting_offer *w =
			LIST_ITEM(k->fresh_waiting.next, struct waiting_offer, node);
		struct request *rq = w->rq;
		verb_fn *fn = w->fn;

		list_del(&w->node);
		free(w);
		k->n_fresh_waiting--;
		if (fresh_enough(k, &em))
			fn(k, rq);
		else
			request_fail(rq, ERR_EXPIRED, "%s", em.text);
	}
}

static void on_current(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	const struct tos_value *m = tos_at(elements, 0);
	struct errmsg em = { "" };
	struct slice list, current;

	(void)arg;
	(void)text;
	k->fresh_asking--;
	if (rc == 0) {
		list.p = tos_get_bytes(m, "list", &list.n);
		current.p = tos_get_bytes(m, "current", &current.n);
		if (list.p)
			rc = revocation_accept(k, list, &em);
		/* A peer with an older list than ours may still hold a statement about ours. */
		if (current.p && (rc == 0 || rc == ERR_REPLAY))
			rc = statement_accept(k, current, true, &em);
		if (rc < 0 && rc != ERR_REPLAY)
			log_notice("what a peer says about revocation was not taken",
				KV_ERR(rc, &em));
	}
	waiting_flush(k);
}

void fresh_ask(struct kernel *k, const char *kernel)
{
	if (k->fresh_asking >= ASKING_MAX)
		return;
	k->fresh_asking++;
	kernel_call(k, kernel, "Kernel", "REVOCATION", NULL, ASK_MS, on_current, NULL);
}

/* Half of what is allowed may pass before it matters; a sixteenth leaves time for a kernel that is
 * away for a while. */
static bool due(const struct kernel *k)
{
	return k->config.revocation_max_ms && !is_registrar(k) &&
	       fresh_age_ms(k) > k->config.revocation_max_ms / 16;
}

void fresh_link_up(struct kernel *k, const char *peer, uint64_t number)
{
	if (number > list_number(k) || due(k))
		fresh_ask(k, peer);
}

void fresh_tick(struct kernel *k, int64_t now_ms)
{
	bool stale = !fresh_enough(k, NULL);
	int64_t again = k->config.revocation_max_ms / 64;

	if (stale != k->fresh_stale) {
		k->fresh_stale = stale;
		if (stale)
			log_warning(
				"the revocation list is too old: no carriers are admitted until the "
				"registrar, or a kernel that heard from it, can be reached",
				KV_STR("registrar", k->config.registrar));
		else
			log_notice(
				"the revocation list is confirmed: carriers are admitted again");
	}
	if (!due(k) || !k->config.registrar[0] || k->fresh_asking ||
		now_ms < k->fresh_ask_at_ms)
		return;
	again = again < AGAIN_MS ? AGAIN_MS : again > AGAIN_MOST_MS ? AGAIN_MOST_MS : again;
	k->fresh_ask_at_ms = now_ms + again;
	fresh_ask(k, k->config.registrar);
}

bool fresh_wait(struct kernel *k, struct request *rq, verb_fn *fn)
{
	struct waiting_offer *w;

	if (fresh_enough(k, NULL) || k->n_fresh_waiting >= WAITING_MAX)
		return false;
	if (!k->fresh_asking) {
		/* whoever asks is linked; one ask a second, however many offers come */
		int64_t now = clock_ms();

		if (now - k->fresh_asked_ms < AGAIN_MS)
			return false;
		k->fresh_asked_ms = now;
		fresh_ask(k, links_find(k->links, k->config.registrar) || !rq->from.kernel[0]
				     ? k->config.registrar
				     : rq->from.kernel);
	}
	w = mem_new(struct waiting_offer);
	w->rq = rq;
	w->fn = fn;
	list_add(&k->fresh_waiting, &w->node);
	k->n_fresh_waiting++;
	return true;
}
