/*
 * Witnesses of audit chains: each hello says how far its sender's chain goes and with which digest.
 * That is remembered for each peer, and later the peer is asked for the digest at that place again.
 * A log that was cut off or written anew, by whoever got at its disk, gives another answer; that is
 * audited here, where they did not get at. Rows of table trust, "audit|NAME".
 */
#include "kernel/trust/trust.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#define ASK_MS   10000
#define AGAIN_MS 3600000 /* links that stay up for long */

struct head {
	uint64_t seq;
	uint8_t chain[DIGEST_BYTES];
};

struct asked {
	char peer[64];
	struct head known, said; /* what we remember; what the hello said */
};

static void row_key(char out[96], const char *peer)
{
	snprintf(out, 96, "audit|%.64s", peer);
}

static bool head_read(
	const struct tos_value *m, const char *seq, const char *chain, struct head *out)
{
	size_t n;
	const uint8_t *p = tos_get_bytes(m, chain, &n);
	int64_t at = tos_get_int(m, seq, 0);

	if (!p || n != DIGEST_BYTES || at <= 0)
		return false;
	out->seq = (uint64_t)at;
	memcpy(out->chain, p, DIGEST_BYTES);
	return true;
}

static bool head_known(struct kernel *k, const char *peer, struct head *out)
{
	AUTOBUF body = BUF_MAX(1024);
	struct tos_value *m = NULL;
	char key[96];
	bool yes;

	row_key(key, peer);
	yes = store_get(k->store, T_TRUST, key, strlen(key), &body, NULL) == 0 &&
	      tos_decode(body.data, body.len, 0, &m) == 0 && head_read(m, "seq", "chain", out);
	tos_value_free(m);
	return yes;
}

static void head_keep(struct kernel *k, const char *peer, const struct head *h)
{
	struct tos_value *m = tos_map();
	struct store_txn *t;
	uint8_t *bytes = NULL;
	char key[96];
	size_t n;

	row_key(key, peer);
	tos_set(m, "chain", tos_bytes(h->chain, DIGEST_BYTES));
	tos_set(m, "seq", tos_int((int64_t)h->seq));
	t = store_begin(k->store);
	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_TRUST, key, strlen(key), bytes, n, 0);
	store_commit(t, NULL, NULL);
	free(bytes);
	tos_value_free(m);
}

/* Said once for each head that was lost: the new one is what is remembered from then on. */
static void rewritten(
	struct kernel *k, const char *peer, const struct head *known, const char *what)
{
	struct tos_value *m = tos_map();

	k->n_audit_rewritten++;
	metric_add(k->metrics, "audit_rewritten_total", NULL, 1);
	log_error("the audit log of a peer is not the one that it was: look at that host",
		KV_STR("peer", peer), KV_INT("record", known->seq), KV_STR("reason", what));
	tos_set(m, "kernel", tos_text(peer));
	tos_set(m, "record", tos_int((int64_t)known->seq));
	tos_set(m, "chain", tos_bytes(known->chain, DIGEST_BYTES));
	tos_set(m, "text", tos_text(what));
	audit_event(k, NULL, "audit-rewritten", m);
}

static void on_audit_at(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct asked *a = arg;
	struct head now;
	size_t n;
	const uint8_t *p = tos_get_bytes(tos_at(elements, 0), "chain", &n);

	(void)text;
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return; /* no answer says nothing; it is asked again */
	if (rc == ERR_NOT_FOUND)
		rewritten(k, a->peer, &a->known, "it has no such record any more");
	else if (!p || n != DIGEST_BYTES || memcmp(p, a->known.chain, n) != 0)
		rewritten(k, a->peer, &a->known, "that record is another one");
	if (head_read(tos_at(elements, 0), "last", "head", &now))
		head_keep(k, a->peer, &now);
	else if (a->said.seq)
		head_keep(k, a->peer, &a->said);
}

static void audit_ask(
	struct kernel *k, const char *peer, const struct head *known, const struct head *said)
{
	struct asked *a = mem_new(struct asked);
	struct tos_value *args = tos_map();

	snprintf(a->peer, sizeof(a->peer), "%s", peer);
	a->known = *known;
	if (said)
		a->said = *said;
	tos_set(args, "seq", tos_int((int64_t)known->seq));
	kernel_call(k, peer, "Kernel", "AUDIT_AT", args, ASK_MS, on_audit_at, a);
}

void witness_hello(struct kernel *k, struct hello *h)
{
	h->audit_seq = store_audit_last(k->store, k->audit_head);
	if (h->audit_seq)
		h->audit_head = (struct slice){ k->audit_head, sizeof(k->audit_head) };
}

void witness_link_up(struct kernel *k, const char *peer, const struct hello *h)
{
	struct head known, said = { .seq = h->audit_seq };

	if (!h->audit_seq || h->audit_head.n != DIGEST_BYTES)
		return; /* of a version that does not say */
	memcpy(said.chain, h->audit_head.p, DIGEST_BYTES);
	if (!head_known(k, peer, &known)) {
		head_keep(k, peer, &said);
	} else if (said.seq < known.seq) {
		rewritten(k, peer, &known, "it ends before that record now");
		head_keep(k, peer, &said);
	} else if (said.seq == known.seq) {
		if (memcmp(said.chain, known.chain, DIGEST_BYTES) != 0) {
			rewritten(k, peer, &known, "that record is another one");
			head_keep(k, peer, &said);
		}
	} else {
		audit_ask(k, peer, &known, &said);
	}
}

void witness_tick(struct kernel *k, int64_t now_ms)
{
	struct head known;
	struct link *l = NULL;

	if (!k->witness_at_ms)
		k->witness_at_ms = now_ms + AGAIN_MS;
	if (now_ms < k->witness_at_ms)
		return;
	k->witness_at_ms = now_ms + AGAIN_MS;
	while ((l = links_next(k->links, l)))
		if (link_kind(l) == LINK_KERNEL && head_known(k, link_name(l), &known))
			audit_ask(k, link_name(l), &known, NULL);
}

static int take_chain(
	void *arg, uint64_t seq, int64_t time_ms, const uint8_t chain[32], struct slice body)
{
	struct head *h = arg;

	(void)time_ms;
	(void)body;
	h->seq = seq;
	memcpy(h->chain, chain, DIGEST_BYTES);
	return 1;
}

void witness_answer(struct kernel *k, struct request *rq)
{
	int64_t seq = tos_get_int(rq->args, "seq", 0);
	struct head h = { .seq = 0 };
	uint8_t head[DIGEST_BYTES];
	struct tos_value *out;
	uint64_t last;

	if (seq <= 0) {
		request_fail(rq, ERR_MALFORMED, "AUDIT_AT lacks seq");
		return;
	}
	store_audit_each(k->store, (uint64_t)seq - 1, 1, take_chain, &h, NULL);
	if (h.seq != (uint64_t)seq) {
		request_fail(rq, ERR_NOT_FOUND, "there is no record %lld", (long long)seq);
		return;
	}
	last = store_audit_last(k->store, head);
	out = tos_map();
	tos_set(out, "chain", tos_bytes(h.chain, DIGEST_BYTES));
	tos_set(out, "head", tos_bytes(head, DIGEST_BYTES));
	tos_set(out, "last", tos_int((int64_t)last));
	request_ok(rq, out);
}
