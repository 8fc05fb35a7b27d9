/*
 * A growable byte buffer with a bound.
 *
 * A failed append sets `failed` and changes nothing else, so that a run of appends needs one
 * check at the end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	size_t max; /* bytes; 0 means BUF_MAX_DEFAULT */
	bool failed;
};

#define BUF_MAX_DEFAULT ((size_t)64 << 20)
#define BUF_INIT                                                                               \
	{                                                                                      \
		NULL, 0, 0, 0, false                                                           \
	}
#define BUF_MAX(n)                                                                             \
	{                                                                                      \
		NULL, 0, 0, (n), false                                                         \
	}
#define AUTOBUF __attribute__((cleanup(buf_fini))) struct buf

void buf_fini(struct buf *b);  /* frees the bytes; b can be used again */
void buf_clear(struct buf *b); /* keeps the memory */

/* All return 0, ERR_TOO_LARGE past max, or ERR_NOMEM. */
int buf_grow(struct buf *b, size_t more); /* buf_reserve() where it has to grow */
static inline int buf_reserve(struct buf *b, size_t more)
{
	size_t max = b->max ? b->max : BUF_MAX_DEFAULT;

	return more <= b->cap - b->len && b->len + more <= max ? 0 : buf_grow(b, more);
}
static inline int buf_add(struct buf *b, const void *p, size_t n)
{
	int rc = buf_reserve(b, n);

	if (rc == 0 && n) {
		memcpy(b->data + b->len, p, n);
		b->len += n;
	}
	return rc;
}
int buf_add_u8(struct buf *b, uint8_t v);
int buf_add_str(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Drop the first n bytes. */
void buf_shift(struct buf *b, size_t n);

/* 0, or ERR_TOO_LARGE when an append since buf_clear() failed, for whatever reason. */
int buf_check(const struct buf *b);

/* The text with a NUL behind it, owned by b, or "" if that failed. */
const char *buf_cstr(struct buf *b);
