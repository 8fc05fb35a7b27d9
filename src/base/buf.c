/* A growable byte buffer with a bound: see buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

#define BUF_FIRST 256 /* most frames fit */

void buf_fini(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
	b->failed = false;
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->failed = false;
}

int buf_grow(struct buf *b, size_t more)
{
	size_t max = b->max ? b->max : BUF_MAX_DEFAULT;
	size_t want;
	uint8_t *p;

	if (more > max || b->len > max - more) {
		b->failed = true;
		return ERR_TOO_LARGE;
	}
	if (b->len + more <= b->cap)
		return 0;
	want = b->cap ? b->cap : BUF_FIRST;
	while (want < b->len + more)
		want *= 2;
	p = mem_try_resize(b->data, want);
	if (!p) {
		b->failed = true;
		return ERR_NOMEM;
	}
	b->data = p;
	b->cap = want;
	return 0;
}

int buf_add_u8(struct buf *b, uint8_t v)
{
	return buf_add(b, &v, 1);
}

int buf_add_str(struct buf *b, const char *s)
{
	return buf_add(b, s, strlen(s));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	int n, rc;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0) {
		va_end(again);
		b->failed = true;
		return ERR_MALFORMED;
	}
	rc = buf_reserve(b, (size_t)n + 1);
	if (rc == 0) {
		vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
	return rc;
}

void buf_shift(struct buf *b, size_t n)
{
	must(n <= b->len);
	if (n && b->len > n)
		memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}

int buf_check(const struct buf *b)
{
	return b->failed ? ERR_TOO_LARGE : 0;
}

const char *buf_cstr(struct buf *b)
{
	if (buf_reserve(b, 1) < 0)
		return "";
	b->data[b->len] = 0;
	return (const char *)b->data;
}
