/*
 * What the two sides of the hand-off share: depart.c sends, arrive.c takes, incarnation.c knows
 * which copy is the later one.
 */
#pragma once

#include "kernel/handoff/chain.h"
#include "kernel/handoff/moves.h"

/* The highest one known of a carrier, or NULL. Borrowed. */
struct incarnation *incarnation_known(struct kernel *k, const uint8_t id[DIGEST_BYTES]);

/* The kernel that handed it to this one; "" if none did: it was launched here. */
void came_from(const struct resident *r, char out[64]);

/* That kernel is to learn of e: told until it has acknowledged. `id`: the carrier's key. */
void void_put(struct store_txn *t, const struct buf *id, const struct incarnation *e,
	const char *dest, int64_t expires_ms);

/* The departure or arrival under way is of memory only, at both ends (--fast): its record names the
 * boot that alone may take it. */
bool handoff_fast(const struct ticket *t, const struct hop *hop);

/* A row of the journal; takes m. */
void journal_put(struct store_txn *t, enum store_table tb, const struct buf *key,
	struct tos_value *m, int64_t expires_ms);
