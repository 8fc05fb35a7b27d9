/*
 * Values: trees of CBOR items. See include/tos/value.h and tree.h.
 *
 * Maps keep their pairs in the order of the encoded keys, so that encoding is a walk and
 * finding is a binary search. Nothing recurses deeper than CBOR_DEPTH_MAX; freeing does not
 * recurse at all, because a program may have built a tree of any depth.
 */
#include <tos/value.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/text.h"
#include "wire/tree.h"

struct tos_value {
	enum tos_type type;
	size_t n; /* bytes, elements, or pairs */
	union {
		size_t cap;             /* containers: room in `items` */
		uint64_t tag;           /* TOS_TAG */
		struct tos_value *link; /* only while being freed */
	};
	union {
		bool b;
		int64_t i;
		double f;
		uint8_t *bytes;           /* behind this struct, and a NUL behind them */
		struct tos_value **items; /* map: key, value, key, value; tag: the one value */
	};
};

/* What malloc takes on top of a block; an estimate, so that a budget means memory. */
#define BLOCK_BYTES 16
#define NODE_BYTES  (sizeof(struct tos_value) + BLOCK_BYTES)

#ifdef TOS_HOSTILE
#define ITEMS_FIRST 1
#else
#define ITEMS_FIRST 4
#endif

static bool is_string(const struct tos_value *v)
{
	return v->type == TOS_BYTES || v->type == TOS_TEXT;
}

static bool is_container(const struct tos_value *v)
{
	return v->type == TOS_ARRAY || v->type == TOS_MAP || v->type == TOS_TAG;
}

/* Pointers in `items`. */
static size_t n_items(const struct tos_value *v)
{
	return v->type == TOS_MAP ? v->n * 2 : v->n;
}

static struct tos_value *node(enum tos_type type)
{
	struct tos_value *v = mem_try_raw(sizeof(*v));

	if (v)
		*v = (struct tos_value){ .type = type };
	return v;
}

/* ---- making and freeing */

void tos_value_free(struct tos_value *v)
{
	struct tos_value *todo = NULL;

	if (!v)
		return;
	if (is_container(v)) {
		v->link = NULL;
		todo = v;
	} else {
		free(v);
	}
	while (todo) {
		struct tos_value *one = todo;

		todo = one->link;
		for (size_t i = 0; i < n_items(one); i++) {
			struct tos_value *child = one->items[i];

			if (is_container(child)) {
				child->link = todo;
				todo = child;
				continue;
			}
			free(child);
		}
		free(one->items);
		free(one);
	}
}

struct tos_value *tos_nil(void)
{
	return node(TOS_NIL);
}

struct tos_value *tos_bool(bool b)
{
	struct tos_value *v = node(TOS_BOOL);

	if (v)
		v->b = b;
	return v;
}

struct tos_value *tos_int(int64_t i)
{
	struct tos_value *v = node(TOS_INT);

	if (v)
		v->i = i;
	return v;
}

struct tos_value *tos_float(double d)
{
	struct tos_value *v = node(TOS_FLOAT);

	if (v)
		v->f = d;
	return v;
}

static struct tos_value *string_new(enum tos_type type, const void *p, size_t n)
{
	struct tos_value *v;

	if (n > SIZE_MAX - sizeof(*v) - 1)
		return NULL;
	v = mem_try_raw(sizeof(*v) + n + 1);
	if (!v)
		return NULL;
	*v = (struct tos_value){ .type = type, .n = n, .bytes = (uint8_t *)(v + 1) };
	if (n)
		memcpy(v->bytes, p, n);
	v->bytes[n] = 0;
	return v;
}

struct tos_value *tos_bytes(const void *p, size_t n)
{
	return string_new(TOS_BYTES, p, n);
}

struct tos_value *tos_text_n(const char *s, size_t n)
{
	return text_utf8(s, n) ? string_new(TOS_TEXT, s, n) : NULL;
}

struct tos_value *tos_text(const char *s)
{
	return s ? tos_text_n(s, strlen(s)) : NULL;
}

struct tos_value *tos_textf(const char *fmt, ...)
{
	struct tos_value *v = NULL;
	AUTOFREE char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		s = NULL; /* vasprintf leaves it undefined */
	else
		v = tos_text_n(s, (size_t)n);
	return v;
}

struct tos_value *tos_array(void)
{
	return node(TOS_ARRAY);
}

struct tos_value *tos_map(void)
{
	return node(TOS_MAP);
}

struct tos_value *tos_tag(uint64_t number, struct tos_value *v)
{
	struct tos_value *t = NULL;

	/* As on the wire: a reference is a number, and no tag tags a tag. */
	if (v && v->type != TOS_TAG &&
		(number == 28 || (number == 29 && v->type == TOS_INT && v->i >= 0)))
		t = node(TOS_TAG);
	if (t)
		t->items = mem_try(sizeof(struct tos_value *));
	if (!t || !t->items) {
		free(t);
		tos_value_free(v);
		return NULL;
	}
	t->tag = number;
	t->items[0] = v;
	t->n = 1;
	return t;
}

/* Room for `more` pointers. */
static int items_reserve(struct tos_value *v, size_t more)
{
	size_t want = v->cap ? v->cap : ITEMS_FIRST;
	struct tos_value **p;

	if (n_items(v) + more <= v->cap)
		return 0;
	while (want < n_items(v) + more)
		want *= 2;
	p = mem_try_resize(v->items, want * sizeof(*p));
	if (!p)
		return ERR_NOMEM;
	v->items = p;
	v->cap = want;
	return 0;
}

static struct tos_value *copy_at(const struct tos_value *v, unsigned depth)
{
	struct tos_value *c;

	if (is_string(v))
		return string_new(v->type, v->bytes, v->n);
	if (is_container(v) && v->type != TOS_TAG && depth++ == CBOR_DEPTH_MAX)
		return NULL;
	c = node(v->type);
	if (!c)
		return NULL;
	if (!is_container(v)) {
		*c = *v;
		return c;
	}
	if (items_reserve(c, n_items(v)) < 0) {
		free(c);
		return NULL;
	}
	for (size_t i = 0; i < n_items(v); i++) {
		c->items[i] = copy_at(v->items[i], depth);
		if (c->items[i])
			continue;
		while (i--)
			tos_value_free(c->items[i]);
		free(c->items);
		free(c);
		return NULL;
	}
	c->n = v->n;
	if (v->type == TOS_TAG)
		c->tag = v->tag;
	return c;
}

struct tos_value *tos_value_copy(const struct tos_value *v)
{
	return v ? copy_at(v, 0) : tos_nil();
}

/* ---- the order of keys */

/* The encoding of a scalar without bytes, in out (9 bytes). */
static size_t scalar_encode(const struct tos_value *v, uint8_t *out)
{
	struct buf b = { out, 0, 16, 16,
		false }; /* never grows: nothing here is longer than 9 */

	switch (v->type) {
	case TOS_BOOL:
		cbor_put_bool(&b, v->b);
		break;
	case TOS_INT:
		cbor_put_int(&b, v->i);
		break;
	case TOS_FLOAT:
		cbor_put_float(&b, v->f);
		break;
	default:
		cbor_put_null(&b);
		break;
	}
	return b.len;
}

/* A key that may be looked for without making a value of it. */
struct key_ref {
	int major; /* 2, 3: `bytes`; else `head` */
	struct slice bytes;
	uint8_t head[16];
};

static struct key_ref key_of(const struct tos_value *v)
{
	struct key_ref k = { 0 };

	if (is_string(v)) {
		k.major = v->type == TOS_BYTES ? 2 : 3;
		k.bytes = (struct slice){ v->bytes, v->n };
	} else {
		k.bytes.n = scalar_encode(v, k.head);
		k.major = k.head[0] >> 5;
	}
	return k;
}

static struct key_ref key_of_text(const char *s)
{
	return (struct key_ref){ .major = 3, .bytes = { (const uint8_t *)s, strlen(s) } };
}

/* Bytewise order of the encodings. Strings: the head holds the length, so shorter ones are
 * first. */
static int key_compare(const struct key_ref *a, const struct key_ref *b)
{
	bool string = a->major == 2 || a->major == 3;

	if (a->major != b->major)
		return a->major < b->major ? -1 : 1;
	if (string) {
		if (a->bytes.n != b->bytes.n)
			return a->bytes.n < b->bytes.n ? -1 : 1;
		return a->bytes.n ? memcmp(a->bytes.p, b->bytes.p, a->bytes.n) : 0;
	}
	/* The first byte says how many follow, so nothing behind a shorter one is compared. */
	return memcmp(a->head, b->head, a->bytes.n < b->bytes.n ? a->bytes.n : b->bytes.n);
}

/* The pair with this key, or where it belongs; *found says which. */
static size_t map_search(const struct tos_value *map, const struct key_ref *key, bool *found)
{
	size_t lo = 0, hi = map->n;

	*found = false;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		struct key_ref k = key_of(map->items[2 * mid]);
		int order = key_compare(key, &k);

		if (order == 0) {
			*found = true;
			return mid;
		}
		if (order < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* ---- changing */

int tos_push(struct tos_value *array, struct tos_value *v)
{
	int rc = !v ? ERR_NOMEM : !array ? ERR_NOMEM : array->type != TOS_ARRAY ? ERR_USAGE : 0;

	if (rc == 0)
		rc = items_reserve(array, 1);
	if (rc < 0)
		tos_value_free(v);
	else
		array->items[array->n++] = v;
	return rc;
}

int tos_set_value(struct tos_value *map, struct tos_value *key, struct tos_value *v)
{
	int rc = !map || !key || !v ? ERR_NOMEM : 0;
	struct key_ref k;
	bool found;
	size_t i;

	if (rc == 0 && (map->type != TOS_MAP || is_container(key)))
		rc = ERR_USAGE;
	if (rc == 0)
		rc = items_reserve(map, 2);
	if (rc < 0) {
		tos_value_free(key);
		tos_value_free(v);
		return rc;
	}
	k = key_of(key);
	i = map_search(map, &k, &found);
	if (found) {
		tos_value_free(key);
		tos_value_free(map->items[2 * i + 1]);
		map->items[2 * i + 1] = v;
		return 0;
	}
	memmove(map->items + 2 * i + 2, map->items + 2 * i,
		(map->n - i) * 2 * sizeof(*map->items));
	map->items[2 * i] = key;
	map->items[2 * i + 1] = v;
	map->n++;
	return 0;
}

int tos_set(struct tos_value *map, const char *key, struct tos_value *v)
{
	size_t n = key ? strlen(key) : 0;

	if (!text_utf8(key, n)) {
		tos_value_free(v);
		return ERR_USAGE;
	}
	return tos_set_value(map, key ? string_new(TOS_TEXT, key, n) : NULL, v);
}

bool tos_unset(struct tos_value *map, const char *key)
{
	struct key_ref k = key_of_text(key);
	bool found;
	size_t i;

	if (tos_type(map) != TOS_MAP)
		return false;
	i = map_search(map, &k, &found);
	if (!found)
		return false;
	tos_value_free(map->items[2 * i]);
	tos_value_free(map->items[2 * i + 1]);
	map->n--;
	memmove(map->items + 2 * i, map->items + 2 * i + 2,
		(map->n - i) * 2 * sizeof(*map->items));
	return true;
}

struct tos_value *tos_take_at(struct tos_value *array, size_t i)
{
	struct tos_value *v;

	if (tos_type(array) != TOS_ARRAY || i >= array->n)
		return NULL;
	v = array->items[i];
	array->n--;
	memmove(array->items + i, array->items + i + 1, (array->n - i) * sizeof(*array->items));
	return v;
}

/* ---- looking */

enum tos_type tos_type(const struct tos_value *v)
{
	return v ? v->type : TOS_NIL;
}

size_t tos_len(const struct tos_value *v)
{
	return v ? v->n : 0;
}

const struct tos_value *tos_at(const struct tos_value *array, size_t i)
{
	return tos_type(array) == TOS_ARRAY && i < array->n ? array->items[i] : NULL;
}

struct tos_value *tos_at_mut(struct tos_value *array, size_t i)
{
	return tos_type(array) == TOS_ARRAY && i < array->n ? array->items[i] : NULL;
}

/* map_search() for what nearly every key is. */
static int text_order(const char *s, size_t n, const struct tos_value *key)
{
	struct key_ref a, b;

	if (key->type == TOS_TEXT)
		return n != key->n ? (n < key->n ? -1 : 1) : memcmp(s, key->bytes, n);
	a = key_of_text(s);
	b = key_of(key);
	return key_compare(&a, &b);
}

static struct tos_value *value_at_key(const struct tos_value *map, const char *key)
{
	size_t n = strlen(key), lo = 0, hi = tos_type(map) == TOS_MAP ? map->n : 0;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int order = text_order(key, n, map->items[2 * mid]);

		if (order == 0)
			return map->items[2 * mid + 1];
		if (order < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

struct tos_value *tos_get_mut(struct tos_value *map, const char *key)
{
	return value_at_key(map, key);
}

const struct tos_value *tos_get(const struct tos_value *map, const char *key)
{
	return value_at_key(map, key);
}

const struct tos_value *tos_key_at(const struct tos_value *map, size_t i)
{
	return tos_type(map) == TOS_MAP && i < map->n ? map->items[2 * i] : NULL;
}

const struct tos_value *tos_value_at(const struct tos_value *map, size_t i)
{
	return tos_type(map) == TOS_MAP && i < map->n ? map->items[2 * i + 1] : NULL;
}

uint64_t tos_tag_number(const struct tos_value *v)
{
	return tos_type(v) == TOS_TAG ? v->tag : 0;
}

const struct tos_value *tos_tag_value(const struct tos_value *v)
{
	return tos_type(v) == TOS_TAG ? v->items[0] : NULL;
}

bool tos_as_bool(const struct tos_value *v, bool def)
{
	return tos_type(v) == TOS_BOOL ? v->b : def;
}

int64_t tos_as_int(const struct tos_value *v, int64_t def)
{
	return tos_type(v) == TOS_INT ? v->i : def;
}

double tos_as_float(const struct tos_value *v, double def)
{
	if (tos_type(v) == TOS_INT)
		return (double)v->i;
	return tos_type(v) == TOS_FLOAT ? v->f : def;
}

const char *tos_as_text(const struct tos_value *v, const char *def)
{
	return tos_type(v) == TOS_TEXT ? (const char *)v->bytes : def;
}

const uint8_t *tos_as_bytes(const struct tos_value *v, size_t *n)
{
	bool string = v && is_string(v);

	if (n)
		*n = string ? v->n : 0;
	return string ? v->bytes : NULL;
}

bool tos_get_bool(const struct tos_value *map, const char *key, bool def)
{
	return tos_as_bool(tos_get(map, key), def);
}

int64_t tos_get_int(const struct tos_value *map, const char *key, int64_t def)
{
	return tos_as_int(tos_get(map, key), def);
}

double tos_get_float(const struct tos_value *map, const char *key, double def)
{
	return tos_as_float(tos_get(map, key), def);
}

const char *tos_get_text(const struct tos_value *map, const char *key, const char *def)
{
	return tos_as_text(tos_get(map, key), def);
}

const uint8_t *tos_get_bytes(const struct tos_value *map, const char *key, size_t *n)
{
	return tos_as_bytes(tos_get(map, key), n);
}

static bool equal_at(const struct tos_value *a, const struct tos_value *b, unsigned depth)
{
	struct key_ref ka, kb;

	if (tos_type(a) != tos_type(b))
		return false;
	if (!a || !b || a->type == TOS_NIL)
		return true;
	if (!is_container(a)) {
		ka = key_of(a);
		kb = key_of(b);
		return key_compare(&ka, &kb) == 0;
	}
	if (a->n != b->n || (a->type == TOS_TAG && a->tag != b->tag))
		return false;
	if (a->type != TOS_TAG && depth++ == CBOR_DEPTH_MAX)
		return false;
	for (size_t i = 0; i < n_items(a); i++)
		if (!equal_at(a->items[i], b->items[i], depth))
			return false;
	return true;
}

bool tos_equal(const struct tos_value *a, const struct tos_value *b)
{
	return equal_at(a, b, 0);
}

/* ---- encoding */

static size_t room(const struct buf *b)
{
	size_t max = b->max ? b->max : BUF_MAX_DEFAULT;

	return b->len < max ? max - b->len : 0;
}

static void put_head_of(struct buf *b, const struct tos_value *v)
{
	uint8_t scalar[16];

	if (!v) { /* what is not there */
		cbor_put_null(b);
		return;
	}
	switch (v->type) {
	case TOS_BYTES:
		cbor_put_bytes(b, v->bytes, v->n);
		break;
	case TOS_TEXT:
		cbor_put_text_n(b, (const char *)v->bytes, v->n);
		break;
	case TOS_ARRAY:
		cbor_put_array(b, v->n);
		break;
	case TOS_MAP:
		cbor_put_map(b, v->n);
		break;
	case TOS_TAG:
		cbor_put_tag(b, v->tag);
		break;
	case TOS_NIL:
		cbor_put_null(b);
		break;
	case TOS_BOOL:
	case TOS_INT:
	case TOS_FLOAT:
		buf_add(b, scalar, scalar_encode(v, scalar));
		break;
	}
}

static int put_at(struct buf *b, const struct tos_value *v, unsigned depth)
{
	size_t most = 9 + (v && is_string(v) ? v->n : 0);
	int rc = 0;

	if (b->failed ||
		most > room(b)) { /* asked before, so that any other failure is memory */
		b->failed = true;
		return ERR_TOO_LARGE;
	}
	if (v && is_container(v) && v->type != TOS_TAG && depth++ == CBOR_DEPTH_MAX) {
		b->failed = true;
		return ERR_TOO_LARGE;
	}
	put_head_of(b, v);
	if (b->failed)
		return ERR_NOMEM;
	for (size_t i = 0; v && is_container(v) && rc == 0 && i < n_items(v); i++)
		rc = put_at(b, v->items[i], depth);
	return rc;
}

int value_put(struct buf *b, const struct tos_value *v)
{
	return put_at(b, v, 0);
}

int tos_encode(const struct tos_value *v, uint8_t **out, size_t *n)
{
	AUTOBUF b = BUF_INIT;
	int rc = value_put(&b, v);

	if (rc < 0)
		return rc;
	*n = b.len;
	*out = STEAL(b.data);
	return 0;
}

/* ---- decoding */

static bool charge(struct cbor_cursor *c, size_t *budget, size_t bytes)
{
	if (c->rc)
		return false;
	if (bytes > *budget) {
		cbor_fail(c, ERR_TOO_LARGE);
		return false;
	}
	*budget -= bytes;
	return true;
}

static struct tos_value *read_scalar(struct cbor_cursor *c, size_t *budget)
{
	enum cbor_kind kind = cbor_peek(c);
	struct tos_value *v = NULL;
	struct slice s;

	switch (kind) {
	case CBOR_BYTES:
	case CBOR_TEXT:
		s = kind == CBOR_TEXT ? cbor_text(c, 0, SIZE_MAX) : cbor_bytes(c, 0, SIZE_MAX);
		if (charge(c, budget, NODE_BYTES + BLOCK_BYTES) && charge(c, budget, s.n))
			v = string_new(kind == CBOR_TEXT ? TOS_TEXT : TOS_BYTES, s.p, s.n);
		break;
	case CBOR_UINT:
	case CBOR_NINT:
		if (charge(c, budget, NODE_BYTES))
			v = tos_int(cbor_int(c));
		break;
	case CBOR_FALSE:
	case CBOR_TRUE:
		if (charge(c, budget, NODE_BYTES))
			v = tos_bool(cbor_bool(c));
		break;
	case CBOR_FLOAT:
		if (charge(c, budget, NODE_BYTES))
			v = tos_float(cbor_float(c));
		break;
	default:
		cbor_null(c); /* fails for anything else */
		if (charge(c, budget, NODE_BYTES))
			v = tos_nil();
		break;
	}
	if (!v)
		cbor_fail(c, ERR_NOMEM);
	return v;
}

/* The container's node with room for `items` pointers. */
static struct tos_value *container_new(
	struct cbor_cursor *c, size_t *budget, enum tos_type type, uint64_t items)
{
	struct tos_value *v = NULL;

	if (charge(c, budget, NODE_BYTES + BLOCK_BYTES) &&
		items <= *budget / sizeof(struct tos_value *) &&
		charge(c, budget, (size_t)items * sizeof(struct tos_value *)))
		v = node(type);
	else
		cbor_fail(c, ERR_TOO_LARGE);
	if (v && items) {
		v->items = mem_try_raw((size_t)items * sizeof(struct tos_value *));
		if (!v->items) {
			free(v);
			v = NULL;
		}
	}
	if (v)
		v->cap = (size_t)items;
	else
		cbor_fail(c, ERR_NOMEM);
	return v;
}

/* Recursion is bounded by the cursor's depth; a tag cannot follow a tag. */
static struct tos_value *read_container(
	struct cbor_cursor *c, size_t *budget, enum cbor_kind kind)
{
	enum tos_type type = kind == CBOR_ARRAY ? TOS_ARRAY : TOS_MAP;
	uint64_t n = kind == CBOR_ARRAY ? cbor_open_array_max(c, UINT64_MAX)
					: cbor_open_map_max(c, UINT64_MAX);
	struct tos_value *v = container_new(c, budget, type, kind == CBOR_MAP ? n * 2 : n);

	for (uint64_t i = 0; !c->rc && i < n; i++) {
		struct tos_value *first = value_read(c, budget);
		struct tos_value *second = kind == CBOR_MAP ? value_read(c, budget) : NULL;

		if (c->rc) {
			tos_value_free(first);
			tos_value_free(second);
			break;
		}
		v->items[kind == CBOR_MAP ? 2 * v->n : v->n] = first;
		if (kind == CBOR_MAP)
			v->items[2 * v->n + 1] = second;
		v->n++;
	}
	cbor_close(c);
	return v;
}

static struct tos_value *read_tag(struct cbor_cursor *c, size_t *budget)
{
	uint64_t number = cbor_tag(c);
	struct tos_value *inner = NULL, *v = NULL;

	if (charge(c, budget, NODE_BYTES + BLOCK_BYTES + sizeof(struct tos_value *)))
		inner = value_read(c, budget);
	if (inner)
		v = tos_tag(number, inner);
	if (!v)
		cbor_fail(c, ERR_NOMEM);
	return v;
}

struct tos_value *value_read(struct cbor_cursor *c, size_t *budget)
{
	enum cbor_kind kind = cbor_peek(c);
	struct tos_value *v;

	if (kind == CBOR_ARRAY || kind == CBOR_MAP)
		v = read_container(c, budget, kind);
	else if (kind == CBOR_TAG)
		v = read_tag(c, budget);
	else
		v = read_scalar(c, budget);
	if (c->rc) {
		tos_value_free(v);
		return NULL;
	}
	return v;
}

static int decode(const void *p, size_t n, size_t most, bool tags, struct tos_value **out)
{
	size_t budget = most ? most : VALUE_BYTES_DEFAULT;
	struct cbor_cursor c;
	struct tos_value *v;
	int rc;

	cbor_init(&c, p, n);
	c.allow_tags = tags;
	v = value_read(&c, &budget);
	rc = cbor_finish(&c);
	if (rc < 0)
		tos_value_free(v);
	else
		*out = v;
	return rc;
}

int tos_decode(const void *p, size_t n, size_t most, struct tos_value **out)
{
	return decode(p, n, most, false, out);
}

int tos_decode_state(const void *p, size_t n, size_t most, struct tos_value **out)
{
	return decode(p, n, most, true, out);
}
