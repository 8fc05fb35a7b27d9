/*
 * Hop records signed and checked, alone or in a batch: the hash tree of RFC 9162, section 2.1, over
 * the hops' payloads, with one signature over its root.
 */
#pragma once

#include "seal/seal.h"
#include "wire/record.h"

/*
 * Sign n hops (payloads; 1 to BATCH_MAX), with one signature. out: n buffers, appended to. One alone
 * is a plain COSE_Sign1.
 */
int records_sign(const struct signer *s, const struct slice *hops, size_t n, struct buf *out,
	struct errmsg *em);
/* The signature, the signer's chain, and for a batched one its place in the tree. *hop may be NULL;
 * hop_fini() it. Errors as cose_verify(). */
int record_verify(const struct trust *t, struct slice bytes, struct hop *hop,
	struct cert_info *who, struct errmsg *em);
