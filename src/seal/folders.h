/*
 * Digests of folders: as hop records sign them, and as owners protect them (doc/protocol.md,
 * "Sealed folders"). Pure arithmetic over encoded elements that were checked before.
 */
#pragma once

#include "seal/seal.h"

/* SHA-256 of the encoding of [name, elements]. */
void folder_digest(struct slice name, struct slice elements, uint8_t out[DIGEST_BYTES]);

/* How far a folder had grown: its first `count` elements and no others have this head.
 * head(0) = SHA-256(name), head(i) = SHA-256(head(i-1) | SHA-256(encoding of element i)). */
struct growth {
	uint64_t count;
	uint8_t head[DIGEST_BYTES];
};
/* elements: a checked array, or empty for a folder that is not there. */
void folder_growth(struct slice name, struct slice elements, struct growth *out);
/* Which of these claims, of ascending counts, are true of the folder's beginning: holds[i] is
 * set or cleared. */
void folder_holds(struct slice name, struct slice elements, const struct growth *claims,
	size_t n, bool *holds);

/* [count, head], as tickets and hop records write it. False: not of that shape. */
struct tos_value *growth_value(const struct growth *g);
bool growth_read(const struct tos_value *v, struct growth *out);
