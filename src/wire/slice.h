/* Bytes that belong to somebody else (slice), or to whoever has the struct (blob). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"

struct slice {
	const uint8_t *p;
	size_t n;
};

static inline struct slice slice_text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}
static inline struct slice slice_buf(const struct buf *b)
{
	return (struct slice){ b->data, b->len };
}
bool slice_equal(struct slice a, struct slice b);
/* What fits, with a NUL behind it. */
void slice_copy_text(struct slice s, char *out, size_t cap);

struct blob {
	const uint8_t *p; /* never written to: others may have the same bytes */
	size_t n;
};
/* copies; aborts without memory: bounded by limits before */
void blob_set(struct blob *b, struct slice s);
/* The same bytes, not a copy; both are freed on their own. For one thread. */
void blob_share(struct blob *b, const struct blob *of);
/* Like blob_set(), but what `same` has is shared where those are the bytes. */
void blob_set_like(struct blob *b, struct slice s, const struct blob *same);
void blob_free(struct blob *b);
static inline struct slice blob_slice(const struct blob *b)
{
	return (struct slice){ b->p, b->n };
}
