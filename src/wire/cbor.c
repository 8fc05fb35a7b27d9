/*
 * The strict CBOR reader and the writer: see cbor.h.
 *
 * Each read goes through item_begin() and item_end(), which keep the count of what the open
 * array or map still has to give and the order of map keys. A head is taken apart in one place,
 * head_read(), where everything that is not the shortest form ends.
 */
#include "wire/cbor.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/text.h"

enum major {
	MAJOR_UINT,
	MAJOR_NINT,
	MAJOR_BYTES,
	MAJOR_TEXT,
	MAJOR_ARRAY,
	MAJOR_MAP,
	MAJOR_TAG,
	MAJOR_7
};

#define TAG_SHARED    28 /* what follows may be referred to */
#define TAG_REFERENCE 29 /* the number of such an item */

#define BYTE_FALSE     0xf4
#define BYTE_TRUE      0xf5
#define BYTE_NULL      0xf6
#define BYTE_UNDEFINED 0xf7
#define BYTE_HALF      0xf9
#define BYTE_SINGLE    0xfa
#define BYTE_DOUBLE    0xfb
#define HALF_NAN       0x7e00

/* ---- reader */

void cbor_init(struct cbor_cursor *c, const void *p, size_t n)
{
	/* The levels are set when they are opened: clearing all of them would cost a kilobyte.
	 */
	c->p = p;
	c->end = n ? c->p + n : c->p;
	c->rc = 0;
	c->depth = 0;
	c->allow_tags = false;
	c->level[0].left = UINT64_MAX;
	c->level[0].is_map = false;
	c->level[0].last_key = (struct slice){ NULL, 0 };
}

void cbor_fail(struct cbor_cursor *c, int rc)
{
	if (!c->rc)
		c->rc = rc;
}

static size_t left_bytes(const struct cbor_cursor *c)
{
	return (size_t)(c->end - c->p);
}

enum cbor_kind cbor_peek(const struct cbor_cursor *c)
{
	static const enum cbor_kind kinds[] = { CBOR_UINT, CBOR_NINT, CBOR_BYTES, CBOR_TEXT,
		CBOR_ARRAY, CBOR_MAP, CBOR_TAG };

	if (c->rc || c->p == c->end || c->level[c->depth].left == 0)
		return CBOR_END;
	if (*c->p >> 5 < MAJOR_7)
		return kinds[*c->p >> 5];
	switch (*c->p) {
	case BYTE_FALSE:
		return CBOR_FALSE;
	case BYTE_TRUE:
		return CBOR_TRUE;
	case BYTE_NULL:
		return CBOR_NULL;
	case BYTE_UNDEFINED:
		return CBOR_UNDEFINED;
	case BYTE_HALF:
	case BYTE_SINGLE:
	case BYTE_DOUBLE:
		return CBOR_FLOAT;
	default:
		return CBOR_SIMPLE;
	}
}

static bool at_key(const struct cbor_cursor *c)
{
	return c->level[c->depth].is_map && c->level[c->depth].left % 2 == 0;
}

/* True if an item of this kind comes next; fails otherwise. */
static bool item_begin(struct cbor_cursor *c, enum cbor_kind kind)
{
	if (!c->rc && cbor_peek(c) != kind)
		c->rc = ERR_MALFORMED;
	return !c->rc;
}

/* Bytewise order of encoded keys, which is what deterministic means for a map. */
static bool key_ascends(struct slice last, struct slice key)
{
	size_t n = last.n < key.n ? last.n : key.n;
	int order;

	if (!last.p)
		return true;
	if (*last.p != *key.p) /* mostly: a text of another length */
		return *last.p < *key.p;
	order = memcmp(last.p, key.p, n);
	return order < 0 || (order == 0 && last.n < key.n);
}

/* A scalar that began at `start` has been read. */
static void item_end(struct cbor_cursor *c, const uint8_t *start)
{
	struct slice key = { start, (size_t)(c->p - start) };

	if (c->rc)
		return;
	if (at_key(c)) {
		if (!key_ascends(c->level[c->depth].last_key, key)) {
			c->rc = ERR_MALFORMED;
			return;
		}
		c->level[c->depth].last_key = key;
	}
	if (c->depth)
		c->level[c->depth].left--;
}

static uint64_t big_endian(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

/* The argument of a head of major type 0 to 6, in its shortest form only. */
static uint64_t head_read(struct cbor_cursor *c)
{
	static const uint64_t least[] = { 24, 0x100, 0x10000, 0x100000000 };
	unsigned info = *c->p & 31;
	size_t n;
	uint64_t v;

	if (info < 24) {
		c->p++;
		return info;
	}
	if (info > 27) { /* reserved, or an indefinite length */
		c->rc = ERR_MALFORMED;
		return 0;
	}
	n = (size_t)1 << (info - 24);
	if (left_bytes(c) < n + 1) {
		c->rc = ERR_MALFORMED;
		return 0;
	}
	v = big_endian(c->p + 1, n);
	if (v < least[info - 24]) {
		c->rc = ERR_MALFORMED;
		return 0;
	}
	c->p += n + 1;
	return v;
}

uint64_t cbor_uint(struct cbor_cursor *c, uint64_t max)
{
	const uint8_t *start = c->p;
	uint64_t v;

	if (!item_begin(c, CBOR_UINT))
		return 0;
	v = head_read(c);
	if (v > max)
		cbor_fail(c, ERR_TOO_LARGE);
	item_end(c, start);
	return c->rc ? 0 : v;
}

int64_t cbor_int(struct cbor_cursor *c)
{
	const uint8_t *start = c->p;
	bool negative = cbor_peek(c) == CBOR_NINT;
	uint64_t v;

	if (!negative)
		return (int64_t)cbor_uint(c, INT64_MAX);
	v = head_read(c);
	if (v > INT64_MAX)
		cbor_fail(c, ERR_TOO_LARGE);
	item_end(c, start);
	return c->rc ? 0 : -1 - (int64_t)v;
}

static double half_value(unsigned half)
{
	uint32_t sign = (half & 0x8000u) << 16;
	uint32_t bits = (half & 0x7fffu) << 13;
	float f;

	if ((half & 0x7c00) == 0) { /* zero or subnormal */
		f = (float)(half & 0x3ff) * 0x1p-24f;
		return sign ? -(double)f : (double)f;
	}
	bits += (half & 0x7c00) == 0x7c00 ? (uint32_t)(255 - 31) << 23
					  : (uint32_t)(127 - 15) << 23;
	bits |= sign;
	memcpy(&f, &bits, sizeof(f));
	return (double)f;
}

static uint32_t single_bits(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return bits;
}

/* A half that is exactly this float, or -1. */
static int half_from_single(uint32_t bits)
{
	unsigned sign = bits >> 16 & 0x8000;
	int exponent = (int)(bits >> 23 & 255) - 127;
	uint32_t fraction = bits & 0x7fffff;

	if ((bits & 0x7fffffff) == 0)
		return (int)sign;
	if (exponent == 128) /* infinity; NaN was dealt with before */
		return fraction ? -1 : (int)(sign | 0x7c00);
	if (exponent >= -14 && exponent <= 15)
		return fraction & 0x1fff
			       ? -1
			       : (int)(sign | (unsigned)(exponent + 15) << 10 | fraction >> 13);
	if (exponent >= -24 && exponent < -14) {
		unsigned shift = (unsigned)(-exponent - 1);

		fraction |= 0x800000;
		return fraction & ((1u << shift) - 1) ? -1 : (int)(sign | fraction >> shift);
	}
	return -1;
}

/* Encode into out (9 bytes); returns the length. */
static size_t float_encode(double v, uint8_t *out)
{
	float single = (float)v;
	uint64_t bits;
	size_t n;
	int half;

	if (v != v) {
		bits = HALF_NAN;
		n = 2;
	} else if ((double)single == v) {
		bits = single_bits(single);
		half = half_from_single((uint32_t)bits);
		n = half < 0 ? 4 : 2;
		if (half >= 0)
			bits = (uint64_t)half;
	} else {
		memcpy(&bits, &v, sizeof(bits));
		n = 8;
	}
	out[0] = n == 2 ? BYTE_HALF : n == 4 ? BYTE_SINGLE : BYTE_DOUBLE;
	for (size_t i = 0; i < n; i++)
		out[1 + i] = (uint8_t)(bits >> 8 * (n - 1 - i));
	return n + 1;
}

double cbor_float(struct cbor_cursor *c)
{
	const uint8_t *start = c->p;
	uint8_t again[9];
	double v = 0;
	size_t n;
	uint64_t bits;

	if (!item_begin(c, CBOR_FLOAT))
		return 0;
	n = (size_t)1 << (*c->p - BYTE_HALF + 1);
	if (left_bytes(c) < n + 1) {
		c->rc = ERR_MALFORMED;
		return 0;
	}
	bits = big_endian(c->p + 1, n);
	if (n == 2) {
		v = half_value((unsigned)bits);
	} else if (n == 4) {
		uint32_t b = (uint32_t)bits;
		float f;

		memcpy(&f, &b, sizeof(f));
		v = (double)f;
	} else {
		memcpy(&v, &bits, sizeof(v));
	}
	/* The writer decides what the shortest form is, so both always agree. */
	if (float_encode(v, again) != n + 1 || memcmp(again, c->p, n + 1) != 0) {
		c->rc = ERR_MALFORMED;
		return 0;
	}
	c->p += n + 1;
	item_end(c, start);
	return c->rc ? 0 : v;
}

bool cbor_bool(struct cbor_cursor *c)
{
	const uint8_t *start = c->p;
	bool v = cbor_peek(c) == CBOR_TRUE;

	if (!item_begin(c, v ? CBOR_TRUE : CBOR_FALSE))
		return false;
	c->p++;
	item_end(c, start);
	return !c->rc && v;
}

void cbor_null(struct cbor_cursor *c)
{
	const uint8_t *start = c->p;

	if (!item_begin(c, CBOR_NULL))
		return;
	c->p++;
	item_end(c, start);
}

static struct slice string_read(
	struct cbor_cursor *c, enum cbor_kind kind, size_t least, size_t most)
{
	const uint8_t *start = c->p;
	struct slice s = { NULL, 0 };
	uint64_t n;

	if (!item_begin(c, kind))
		return s;
	n = head_read(c);
	if (c->rc)
		return s;
	if (n > left_bytes(c))
		cbor_fail(c, ERR_MALFORMED); /* NOLINT(bugprone-branch-clone): the order */
	else if (n > most)
		cbor_fail(c, ERR_TOO_LARGE);
	else if (n < least || (kind == CBOR_TEXT && !text_utf8((const char *)c->p, (size_t)n)))
		cbor_fail(c, ERR_MALFORMED);
	if (c->rc)
		return s;
	s = (struct slice){ c->p, (size_t)n };
	c->p += n;
	item_end(c, start);
	return c->rc ? (struct slice){ NULL, 0 } : s;
}

struct slice cbor_bytes(struct cbor_cursor *c, size_t least, size_t most)
{
	return string_read(c, CBOR_BYTES, least, most);
}

struct slice cbor_text(struct cbor_cursor *c, size_t least, size_t most)
{
	return string_read(c, CBOR_TEXT, least, most);
}

/* Read a container's head and step into it. Each element takes a byte at least, so a count
 * larger than what is left is a lie. */
static uint64_t container_open(struct cbor_cursor *c, enum cbor_kind kind, uint64_t most)
{
	unsigned each = kind == CBOR_MAP ? 2 : 1;
	uint64_t n;

	if (!item_begin(c, kind))
		return 0;
	if (at_key(c)) {
		c->rc = ERR_MALFORMED;
		return 0;
	}
	if (c->depth == CBOR_DEPTH_MAX) {
		c->rc = ERR_TOO_LARGE;
		return 0;
	}
	n = head_read(c);
	if (n > left_bytes(c) / each)
		cbor_fail(c, ERR_MALFORMED);
	else if (n > most)
		cbor_fail(c, ERR_TOO_LARGE);
	if (c->rc)
		return 0;
	if (c->depth)
		c->level[c->depth].left--;
	c->depth++;
	c->level[c->depth].left = n * each;
	c->level[c->depth].is_map = kind == CBOR_MAP;
	c->level[c->depth].last_key = (struct slice){ NULL, 0 };
	return n;
}

uint64_t cbor_open_array_max(struct cbor_cursor *c, uint64_t most)
{
	return container_open(c, CBOR_ARRAY, most);
}

void cbor_open_array(struct cbor_cursor *c, uint64_t n)
{
	if (container_open(c, CBOR_ARRAY, UINT64_MAX) != n)
		cbor_fail(c, ERR_MALFORMED);
}

uint64_t cbor_open_map_max(struct cbor_cursor *c, uint64_t most)
{
	return container_open(c, CBOR_MAP, most);
}

void cbor_close(struct cbor_cursor *c)
{
	if (c->rc)
		return;
	if (c->depth == 0 || c->level[c->depth].left != 0)
		c->rc = ERR_MALFORMED;
	else
		c->depth--;
}

uint64_t cbor_tag(struct cbor_cursor *c)
{
	uint64_t tag;

	if (!item_begin(c, CBOR_TAG))
		return 0;
	if (!c->allow_tags || at_key(c)) {
		c->rc = ERR_MALFORMED;
		return 0;
	}
	tag = head_read(c);
	if (c->rc)
		return 0;
	/* A reference is a number, and a tag on a tag would make nesting that no depth counts.
	 */
	if (!((tag == TAG_SHARED && cbor_peek(c) != CBOR_TAG && cbor_peek(c) != CBOR_END) ||
		    (tag == TAG_REFERENCE && cbor_peek(c) == CBOR_UINT)))
		c->rc = ERR_MALFORMED;
	return c->rc ? 0 : tag;
}

/* Read a scalar, step into a container or over a tag. */
static void any_step(struct cbor_cursor *c)
{
	switch (cbor_peek(c)) {
	case CBOR_UINT:
	case CBOR_NINT:
		cbor_int(c);
		break;
	case CBOR_BYTES:
		cbor_bytes(c, 0, SIZE_MAX);
		break;
	case CBOR_TEXT:
		cbor_text(c, 0, SIZE_MAX);
		break;
	case CBOR_ARRAY:
		cbor_open_array_max(c, UINT64_MAX);
		break;
	case CBOR_MAP:
		cbor_open_map_max(c, UINT64_MAX);
		break;
	case CBOR_TAG:
		cbor_tag(c);
		break;
	case CBOR_FALSE:
	case CBOR_TRUE:
		cbor_bool(c);
		break;
	case CBOR_NULL:
		cbor_null(c);
		break;
	case CBOR_FLOAT:
		cbor_float(c);
		break;
	case CBOR_UNDEFINED:
	case CBOR_SIMPLE:
	case CBOR_END:
		cbor_fail(c, ERR_MALFORMED);
		break;
	}
}

struct slice cbor_any(struct cbor_cursor *c)
{
	const uint8_t *start = c->p;
	unsigned base = c->depth;
	bool more;

	do {
		more = cbor_peek(c) == CBOR_TAG; /* its item is still to come */
		any_step(c);
		while (!c->rc && c->depth > base && c->level[c->depth].left == 0)
			cbor_close(c);
	} while (!c->rc && (more || c->depth > base));
	return c->rc ? (struct slice){ NULL, 0 }
		     : (struct slice){ start, (size_t)(c->p - start) };
}

/* The head for a major type, shortest form, into out (9 bytes); returns the length. */
static size_t head_encode(enum major major, uint64_t v, uint8_t *out)
{
	uint8_t top = (uint8_t)(major << 5);
	size_t n;

	if (v < 24) {
		out[0] = top | (uint8_t)v;
		return 1;
	}
	n = v <= 0xff ? 1 : v <= 0xffff ? 2 : v <= 0xffffffff ? 4 : 8;
	out[0] = (uint8_t)(top | (n == 1 ? 24 : n == 2 ? 25 : n == 4 ? 26 : 27));
	for (size_t i = 0; i < n; i++)
		out[1 + i] = (uint8_t)(v >> 8 * (n - 1 - i));
	return n + 1;
}

bool cbor_key(struct cbor_cursor *c, const char *key)
{
	const uint8_t *start = c->p;
	size_t len = strlen(key);
	uint8_t head[9];
	size_t n = head_encode(MAJOR_TEXT, len, head);

	if (cbor_peek(c) != CBOR_TEXT || left_bytes(c) < n + len ||
		memcmp(c->p, head, n) != 0 || memcmp(c->p + n, key, len) != 0)
		return false;
	c->p += n + len;
	item_end(c, start);
	return !c->rc;
}

void cbor_expect_text(struct cbor_cursor *c, const char *text)
{
	if (!cbor_key(c, text))
		cbor_fail(c, ERR_MALFORMED);
}

int cbor_finish(struct cbor_cursor *c)
{
	if (!c->rc && (c->p != c->end || c->depth != 0))
		c->rc = ERR_MALFORMED;
	return c->rc;
}

int cbor_check(const void *p, size_t n, bool allow_tags)
{
	struct cbor_cursor c;

	cbor_init(&c, p, n);
	c.allow_tags = allow_tags;
	cbor_any(&c);
	return cbor_finish(&c);
}

/* ---- writer */

static void put_head(struct buf *b, enum major major, uint64_t v)
{
	uint8_t head[9];

	buf_add(b, head, head_encode(major, v, head));
}

void cbor_put_uint(struct buf *b, uint64_t v)
{
	put_head(b, MAJOR_UINT, v);
}

void cbor_put_int(struct buf *b, int64_t v)
{
	if (v >= 0)
		put_head(b, MAJOR_UINT, (uint64_t)v);
	else
		put_head(b, MAJOR_NINT, (uint64_t)(-1 - v));
}

void cbor_put_float(struct buf *b, double v)
{
	uint8_t out[9];

	buf_add(b, out, float_encode(v, out));
}

void cbor_put_bool(struct buf *b, bool v)
{
	buf_add_u8(b, v ? BYTE_TRUE : BYTE_FALSE);
}

void cbor_put_null(struct buf *b)
{
	buf_add_u8(b, BYTE_NULL);
}

void cbor_put_bytes(struct buf *b, const void *p, size_t n)
{
	put_head(b, MAJOR_BYTES, n);
	buf_add(b, p, n);
}

void cbor_put_text_n(struct buf *b, const char *s, size_t n)
{
	put_head(b, MAJOR_TEXT, n);
	buf_add(b, s, n);
}

void cbor_put_text(struct buf *b, const char *s)
{
	cbor_put_text_n(b, s, strlen(s));
}

void cbor_put_array(struct buf *b, uint64_t n)
{
	put_head(b, MAJOR_ARRAY, n);
}

void cbor_put_map(struct buf *b, uint64_t pairs)
{
	put_head(b, MAJOR_MAP, pairs);
}

void cbor_put_tag(struct buf *b, uint64_t tag)
{
	put_head(b, MAJOR_TAG, tag);
}

void cbor_put_raw(struct buf *b, struct slice item)
{
	buf_add(b, item.p, item.n);
}
