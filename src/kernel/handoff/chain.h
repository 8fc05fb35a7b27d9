/* Chains of hop records: who signed which, and where a carrier was by them (chain.c). */
#pragma once

#include "kernel/kernel.h"

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
