/*
 * Incarnations, the highest known of each carrier and kept across restarts; and the rows of the
 * journal in which both sides of the hand-off (depart.c, arrive.c) write before they act.
 */
#include "kernel/handoff/handoff.h"

#include <string.h>

#include "base/clock.h"

#include "base/fault.h"
#include "kernel/handoff/moves.h"

#define INCARNATIONS_MAX 1000000

struct tos_value *incarnation_value(const struct incarnation *e)
{
	struct tos_value *v = tos_array();

	tos_push(v, tos_int((int64_t)e->count));
	tos_push(v, tos_bytes(e->nonce, sizeof(e->nonce)));
	return v;
}

int incarnation_read(const struct tos_value *v, struct incarnation *out)
{
	size_t n;
	const uint8_t *p = tos_as_bytes(tos_at(v, 1), &n);

	*out = (struct incarnation){ 0 };
	if (tos_type(v) != TOS_ARRAY || n != sizeof(out->nonce) ||
		tos_as_int(tos_at(v, 0), -1) < 0)
		return ERR_MALFORMED;
	out->count = (uint64_t)tos_as_int(tos_at(v, 0), 0);
	memcpy(out->nonce, p, n);
	return 0;
}

int incarnation_pick(struct slice encoded, struct incarnation *out)
{
	struct cbor_cursor c;
	struct incarnation e = { 0 };
	struct slice nonce;
	int rc;

	*out = e;
	cbor_init(&c, encoded.p, encoded.n);
	cbor_open_array(&c, 2);
	e.count = cbor_uint(&c, INT64_MAX);
	nonce = cbor_bytes(&c, sizeof(e.nonce), sizeof(e.nonce));
	cbor_close(&c);
	rc = cbor_finish(&c);
	if (rc < 0)
		return rc;
	memcpy(e.nonce, nonce.p, nonce.n);
	*out = e;
	return 0;
}

struct known {
	struct incarnation e;
	int64_t until_ms; /* wall */
};

struct incarnation *incarnation_known(struct kernel *k, const uint8_t id[DIGEST_BYTES])
{
	struct known *known = map_find(k->incarnations, id, DIGEST_BYTES);

	return known ? &known->e : NULL;
}

void incarnations_expire(struct kernel *k)
{
	struct known *known;
	const void *key;
	size_t it = 0, n;
	int64_t now = clock_wall_ms();

	while ((known = map_next(k->incarnations, &it, &key, &n)))
		if (now > known->until_ms) {
			map_del(k->incarnations, key, n);
			free(known);
		}
}

/* Kept as long as a copy of it could still come: until its ticket has expired, and a while. A VOID
 * does not say when that is. */
#define UNKNOWN_KEEP_MS ((int64_t)210 * 86400000)

void incarnation_learn(struct kernel *k, const uint8_t id[DIGEST_BYTES],
	const struct incarnation *e, int64_t ticket_expires_ms)
{
	struct known *known = map_find(k->incarnations, id, DIGEST_BYTES);
	struct store_txn *t;
	struct tos_value *v;
	uint8_t *bytes = NULL;
	size_t n;

	if (e->count == 0 || (known && incarnation_compare(e, &known->e) <= 0))
		return;
	if (!known) {
		if (map_size(k->incarnations) >= INCARNATIONS_MAX) {
			metric_add(k->metrics, "incarnations_dropped_total", NULL, 1);
			return;
		}
		known = mem_new(struct known);
		map_put(k->incarnations, id, DIGEST_BYTES, known);
	}
	known->e = *e;
	if (ticket_expires_ms)
		known->until_ms = ticket_expires_ms + KEEP_AFTER_MS;
	else if (!known->until_ms)
		known->until_ms = clock_wall_ms() + UNKNOWN_KEEP_MS;
	v = incarnation_value(e);
	t = store_begin(k->store);
	if (tos_encode(v, &bytes, &n) == 0)
		store_put(t, T_INCARNATION, id, DIGEST_BYTES, bytes, n, known->until_ms);
	FAULT_AT(LEARN_COMMIT);
	store_commit(t, NULL, NULL);
	free(bytes);
	tos_value_free(v);
}

static int incarnation_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *v = NULL;
	struct known *e = mem_new(struct known);

	/* A row of a version that kept them for ever ends, too. */
	e->until_ms = expires_ms ? expires_ms : clock_wall_ms() + UNKNOWN_KEEP_MS;
	if (key.n == DIGEST_BYTES && tos_decode(body.p, body.n, 0, &v) == 0 &&
		incarnation_read(v, &e->e) == 0)
		free(map_put(k->incarnations, key.p, key.n, e));
	else
		free(e);
	tos_value_free(v);
	return 0;
}

int handoff_load(struct kernel *k, struct errmsg *em)
{
	k->incarnations = map_new();
	k->arrivals = map_new();
	k->codes = map_new();
	k->void_peers = map_new();
	k->fast_taken = map_new();
	k->gone_late = map_new();
	list_init(&k->signing);
	handoff_answers_init(k);
	return store_all(k->store, T_INCARNATION, incarnation_row, k, em);
}

bool handoff_fast(const struct ticket *t, const struct hop *hop)
{
	return t->fast && hop->has_boot && hop->kind == 0;
}

void journal_put(struct store_txn *t, enum store_table tb, const struct buf *key,
	struct tos_value *m, int64_t expires_ms)
{
	uint8_t *bytes = NULL;
	size_t n;

	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, tb, key->data, key->len, bytes, n, expires_ms);
	free(bytes);
	tos_value_free(m);
}
