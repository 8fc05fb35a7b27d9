/*
 * CBOR in the core deterministic encoding of RFC 8949, section 4.2.1: a strict pull reader and
 * a writer. Nothing is allocated here; lengths are checked against the bytes that are left
 * before anything is done with them.
 *
 * The cursor remembers its first failure, so a decoder is a list of fields with one check at
 * the end. After a failure every read returns 0, NULL or an empty slice.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/slice.h"

struct buf;

#define CBOR_DEPTH_MAX 32

struct cbor_cursor {
	const uint8_t *p, *end;
	int rc; /* first failure, or 0 */
	unsigned depth;
	struct {
		uint64_t left; /* items (map: keys and values) still to come */
		bool is_map;
		struct slice last_key; /* encoded; keys must ascend bytewise */
	} level[CBOR_DEPTH_MAX + 1];
	bool allow_tags; /* only for carrier state */
};

enum cbor_kind {
	CBOR_UINT,
	CBOR_NINT,
	CBOR_BYTES,
	CBOR_TEXT,
	CBOR_ARRAY,
	CBOR_MAP,
	CBOR_TAG,
	CBOR_FALSE,
	CBOR_TRUE,
	CBOR_NULL,
	CBOR_UNDEFINED,
	CBOR_SIMPLE,
	CBOR_FLOAT,
	CBOR_END
};

void cbor_init(struct cbor_cursor *c, const void *p, size_t n);
/* CBOR_END at the end of the level or after a failure */
enum cbor_kind cbor_peek(const struct cbor_cursor *c);
uint64_t cbor_uint(struct cbor_cursor *c, uint64_t max);
int64_t cbor_int(struct cbor_cursor *c); /* within int64 */
double cbor_float(struct cbor_cursor *c);
bool cbor_bool(struct cbor_cursor *c);
void cbor_null(struct cbor_cursor *c);
/* Borrow from the input; the length must lie in [least, most]. */
struct slice cbor_bytes(struct cbor_cursor *c, size_t least, size_t most);
struct slice cbor_text(struct cbor_cursor *c, size_t least, size_t most); /* UTF-8 checked */
/* Open with exactly n elements, or anything up to most; returns the count. */
void cbor_open_array(struct cbor_cursor *c, uint64_t n);
uint64_t cbor_open_array_max(struct cbor_cursor *c, uint64_t most);
/* pairs; key order and uniqueness are checked */
uint64_t cbor_open_map_max(struct cbor_cursor *c, uint64_t most);
void cbor_close(struct cbor_cursor *c); /* everything in the level must have been read */
uint64_t cbor_tag(struct cbor_cursor *c);
/* Skip one whole item of any kind, checked as strictly; returns its bytes. */
struct slice cbor_any(struct cbor_cursor *c);
/* True and consumed if the next item is this text. Used for map keys. */
bool cbor_key(struct cbor_cursor *c, const char *key);
/* A required text; failure otherwise. */
void cbor_expect_text(struct cbor_cursor *c, const char *text);
/* Make the cursor fail with rc unless it failed already. */
void cbor_fail(struct cbor_cursor *c, int rc);
/* The first failure, or ERR_MALFORMED if bytes or levels remain. */
int cbor_finish(struct cbor_cursor *c);

/* 0 if p..p+n is exactly one well-formed deterministic item. */
int cbor_check(const void *p, size_t n, bool allow_tags);

/* Writer: appends to a buf; failures are remembered there. Map keys must be put in order by the
 * caller: shorter encodings first is NOT the rule, bytewise order of the encoded keys is. */
void cbor_put_uint(struct buf *b, uint64_t v);
void cbor_put_int(struct buf *b, int64_t v);
void cbor_put_float(struct buf *b, double v); /* shortest that keeps the value */
void cbor_put_bool(struct buf *b, bool v);
void cbor_put_null(struct buf *b);
void cbor_put_bytes(struct buf *b, const void *p, size_t n);
void cbor_put_text(struct buf *b, const char *s);
void cbor_put_text_n(struct buf *b, const char *s, size_t n);
void cbor_put_array(struct buf *b, uint64_t n);
void cbor_put_map(struct buf *b, uint64_t pairs);
void cbor_put_tag(struct buf *b, uint64_t tag);
void cbor_put_raw(struct buf *b, struct slice item); /* one encoded item */
