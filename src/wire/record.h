/*
 * A hop record as it travels, doc/protocol.md "Hop record": a COSE_Sign1 over the hop; or, where one
 * signature covers a batch, the hop with its place in the batch's hash tree and the COSE_Sign1 over
 * the root, so that any later host can check it alone.
 */
#pragma once

#include "wire/carrier.h"
#include "wire/cose.h"

#define BATCH_BITS 8
#define BATCH_MAX  (1u << BATCH_BITS) /* records under one signature */

struct record {
	struct slice hop;  /* the payload: for hop_decode() */
	struct slice cose; /* what was signed */
	bool batched;
	uint64_t index; /* in the batch */
	struct slice path[BATCH_BITS];
	size_t n_path;
};
/* Everything borrows from bytes. */
int record_decode(struct slice bytes, struct record *out, struct errmsg *em);
/* A batched one. */
void record_encode(struct buf *b, const struct record *r);
/* Decoded, not believed. hop_fini() it; *out is written on success only. */
int record_hop(struct slice bytes, struct hop *out, struct errmsg *em);

/* batch = {root: digest, count: 2..256}, application/tos-hops */
struct batch {
	uint8_t root[DIGEST_BYTES];
	uint64_t count;
};
int batch_decode(struct slice payload, struct batch *out, struct errmsg *em);
void batch_encode(struct buf *b, const struct batch *a);
