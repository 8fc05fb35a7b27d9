/*
 * What the two sides of the hand-off share: depart.c sends, arrive.c takes, incarnation.c knows
 * which copy is the later one.
 */
#pragma once

#include "kernel/kernel.h"

/* How long the journal keeps an answer or a departure after the ticket has expired. */
#define KEEP_AFTER_MS ((int64_t)7 * 86400000)

/* The arguments of an OFFER. */
struct tos_value *offer_args(const struct resident *r);

/* The highest one known of a carrier, or NULL. Borrowed. */
struct incarnation *incarnation_known(struct kernel *k, const uint8_t id[DIGEST_BYTES]);

/* The kernel that handed it to this one; "" if none did: it was launched here. */
void came_from(const struct resident *r, char out[64]);

/* That kernel is to learn of e: told until it has acknowledged. `id`: the carrier's key. */
void void_put(struct store_txn *t, const struct buf *id, const struct incarnation *e,
	const char *dest, int64_t expires_ms);

/* How far a chain of records has been followed: whose it is now, and where. */
struct chain_end {
	uint8_t root[DIGEST_BYTES], id[DIGEST_BYTES];
	uint8_t prev[DIGEST_BYTES]; /* digest of the last record; zeros before the first */
	char suffix[64], at[65];
	int64_t budget[LIMIT_COUNT];
	size_t n;
};
void chain_begin(struct chain_end *end, const uint8_t root[DIGEST_BYTES], const char *home,
	const int64_t budget[LIMIT_COUNT]);
/* One more record: signed by the kernel that it leaves from, and it goes on from there. ERR_LIMIT: a
 * clone that was given more than its parent had. */
int chain_step(struct kernel *k, struct slice bytes, struct chain_end *end, struct errmsg *em);

/* Each record of r->hops signed by the kernel it left from, each naming the one before, from the
 * home on; and `last` (its bytes; signature and id checked by the caller) continues them. */
int chain_verify(struct kernel *k, const struct resident *r, struct slice last_bytes,
	const struct hop *last, struct errmsg *em);

/* The departure or arrival under way is of memory only, at both ends (--fast): its record names the
 * boot that alone may take it. */
bool handoff_fast(const struct ticket *t, const struct hop *hop);

/* A row of the journal; takes m. */
void journal_put(struct store_txn *t, enum store_table tb, const struct buf *key,
	struct tos_value *m, int64_t expires_ms);
