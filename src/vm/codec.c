/*
 * Lua values <-> CBOR, on the Lua stack, without trees between.
 *
 * Two dialects: values (folder elements: no sharing) and states (`self`: tags 28 and 29 keep
 * shared and cyclic tables). Encoding is two passes for states: the first finds the tables that
 * are met more than once, so that a tree without sharing has no tags at all.
 */
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

#define BYTES_TYPE "tos.bytes"
#define TAG_SHARED 28
#define TAG_REF    29
#define WAY_PARTS  8 /* of the name in a message: self.a.b[3] */

void codec_fini(struct codec *k)
{
	buf_fini(&k->keys);
	free(k->order);
	k->order = NULL;
	k->cap_order = k->n_order = 0;
}

void bytes_mark(lua_State *L)
{
	lua_newuserdatauv(L, 0, 1);
	lua_insert(L, -2);
	lua_setiuservalue(L, -2, 1);
	if (luaL_newmetatable(L, BYTES_TYPE)) {
		lua_pushliteral(L, "bytes");
		lua_setfield(L, -2, "__metatable");
		lua_pushliteral(L, "bytes");
		lua_setfield(L, -2, "__name");
	}
	lua_setmetatable(L, -2);
}

/* ---- encoding */

struct enc {
	lua_State *L;
	struct buf *b;
	struct codec *k;
	const char *root;
	unsigned depth, depth_max;
	int seen; /* stack index of table -> 1 (met once), true (met again), -(n+1) (written as
		     n); 0: values */
	lua_Integer n_shared;
	/* The way to what is being written, for messages: keys as stack indices don't last, so
	 * texts. */
	struct {
		const char *text; /* borrowed from a string that the stack or its table holds */
		lua_Integer number;
	} way[STATE_DEPTH_MAX + 2];
};

static void way_text(const struct enc *e, char *out, size_t cap)
{
	size_t at = (size_t)snprintf(out, cap, "%s", e->root);

	for (unsigned i = 0; i < e->depth && at + 1 < cap; i++) {
		if (i == WAY_PARTS) {
			snprintf(out + at, cap - at, "...");
			return;
		}
		if (e->way[i].text)
			at += (size_t)snprintf(out + at, cap - at, ".%.40s", e->way[i].text);
		else
			at += (size_t)snprintf(
				out + at, cap - at, "[" LUA_INTEGER_FMT "]", e->way[i].number);
	}
}

static int enc_refuse(struct enc *e, int rc, const char *why)
{
	char where[300];

	way_text(e, where, sizeof where);
	return err_set(&e->k->em, rc, "%s %s", where, why);
}

static int enc_item(struct enc *e, int index);

/* Append a nil, boolean, number or string; false: it is something else. */
static bool put_scalar(lua_State *L, int index, struct buf *b)
{
	size_t n;
	const char *s;

	switch (lua_type(L, index)) {
	case LUA_TNIL:
		cbor_put_null(b);
		return true;
	case LUA_TBOOLEAN:
		cbor_put_bool(b, lua_toboolean(L, index));
		return true;
	case LUA_TNUMBER:
		if (lua_isinteger(L, index))
			cbor_put_int(b, lua_tointeger(L, index));
		else
			cbor_put_float(b, lua_tonumber(L, index));
		return true;
	case LUA_TSTRING:
		s = lua_tolstring(L, index, &n);
		if (text_utf8(s, n))
			cbor_put_text_n(b, s, n);
		else
			cbor_put_bytes(b, s, n);
		return true;
	default:
		return false;
	}
}

/* True if the keys are exactly 1..n. */
static bool is_array(lua_State *L, int t, lua_Unsigned n, uint64_t *pairs)
{
	uint64_t count = 0;
	bool only = true;

	lua_pushnil(L);
	while (lua_next(L, t)) {
		lua_pop(L, 1);
		count++;
		if (only) {
			lua_Integer i = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;

			only = i >= 1 && (lua_Unsigned)i <= n;
		}
	}
	*pairs = count;
	return only && count == n && n > 0;
}

static int order_add(struct codec *k, size_t off)
{
	if (k->n_order == k->cap_order) {
		size_t cap = k->cap_order ? 2 * k->cap_order : 256;
		uint32_t *more = mem_try_resize(k->order, cap * sizeof *more);

		if (!more)
			return ERR_NOMEM;
		k->order = more;
		k->cap_order = cap;
	}
	if (off > UINT32_MAX)
		return ERR_TOO_LARGE;
	k->order[k->n_order++] = (uint32_t)off;
	return 0;
}

/* Each key in k->keys: 4 bytes of length, then the encoding. */
static uint32_t key_len(const struct codec *k, uint32_t off)
{
	uint32_t n;

	memcpy(&n, k->keys.data + off, sizeof n);
	return n;
}

static int key_compare(const void *a, const void *b, void *arg)
{
	const struct codec *k = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	uint32_t nx = key_len(k, x), ny = key_len(k, y);
	int d = memcmp(k->keys.data + x + 4, k->keys.data + y + 4, nx < ny ? nx : ny);

	return d ? d : (nx > ny) - (nx < ny);
}

/* Encode the key at the top of the stack. */
static int key_put(struct enc *e)
{
	struct codec *k = e->k;
	size_t off = k->keys.len;
	uint32_t n = 0;
	lua_State *L = e->L;

	buf_add(&k->keys, &n, sizeof n);
	if (!put_scalar(L, lua_gettop(L), &k->keys)) {
		lua_pushfstring(
			L, "has a key that is a %s; it can't travel", luaL_typename(L, -1));
		enc_refuse(e, ERR_UNSUPPORTED, lua_tostring(L, -1));
		lua_pop(L, 1);
		return ERR_UNSUPPORTED;
	}
	if (buf_check(&k->keys))
		return buf_check(&k->keys);
	n = (uint32_t)(k->keys.len - off - 4);
	memcpy(k->keys.data + off, &n, sizeof n);
	return order_add(k, off);
}

static int value_push(lua_State *L, struct slice bytes, unsigned depth_max, bool tags);

static int map_values(struct enc *e, int t, size_t from, uint64_t pairs)
{
	lua_State *L = e->L;
	struct codec *k = e->k;
	int rc = 0;

	e->depth++;
	for (uint64_t i = 0; i < pairs && !rc; i++) {
		uint32_t off = k->order[from + i], n = key_len(k, off);
		struct slice key = { k->keys.data + off + 4, n };

		cbor_put_raw(e->b, key);
		value_push(L, key, 1, false);
		e->way[e->depth - 1].text =
			lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
		e->way[e->depth - 1].number = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
		lua_pushvalue(L, -1);
		lua_rawget(L, t);
		rc = enc_item(e, lua_gettop(L));
		lua_pop(L, 2);
	}
	e->depth--;
	return rc;
}

/* Keys are sorted by their encodings; only then the values, so that shared tables are numbered
 * in the order in which a reader meets them. */
static int enc_map(struct enc *e, int t, uint64_t pairs)
{
	lua_State *L = e->L;
	struct codec *k = e->k;
	size_t from = k->n_order, keys_at = k->keys.len;
	int rc = 0;

	lua_pushnil(L);
	while (!rc && lua_next(L, t)) {
		lua_pop(L, 1);
		rc = key_put(e);
	}
	if (rc) {
		lua_pop(L, 1);
		return rc;
	}
	if (pairs > 1)
		qsort_r(k->order + from, pairs, sizeof *k->order, key_compare, k);
	cbor_put_map(e->b, pairs);
	rc = map_values(e, t, from, pairs);
	k->n_order = from;
	k->keys.len = keys_at;
	return rc;
}

static int enc_array(struct enc *e, int t, lua_Unsigned n)
{
	lua_State *L = e->L;
	int rc = 0;

	cbor_put_array(e->b, n);
	e->depth++;
	e->way[e->depth - 1].text = NULL;
	for (lua_Unsigned i = 1; i <= n && !rc; i++) {
		e->way[e->depth - 1].number = (lua_Integer)i;
		lua_rawgeti(L, t, (lua_Integer)i);
		rc = enc_item(e, lua_gettop(L));
		lua_pop(L, 1);
	}
	e->depth--;
	return rc;
}

/* 1: it was written before, and a reference now. */
static int enc_shared(struct enc *e, int t)
{
	lua_State *L = e->L;
	lua_Integer at;

	if (!e->seen)
		return 0;
	lua_pushvalue(L, t);
	lua_rawget(L, e->seen);
	if (lua_isboolean(L, -1)) { /* shared, and not yet written */
		lua_pop(L, 1);
		lua_pushvalue(L, t);
		lua_pushinteger(L, -(++e->n_shared));
		lua_rawset(L, e->seen);
		cbor_put_tag(e->b, TAG_SHARED);
		return 0;
	}
	at = lua_tointeger(L, -1);
	lua_pop(L, 1);
	if (at >= 0)
		return 0;
	cbor_put_tag(e->b, TAG_REF);
	cbor_put_uint(e->b, (uint64_t)(-at - 1));
	return 1;
}

static int enc_table(struct enc *e, int t)
{
	lua_Unsigned n = lua_rawlen(e->L, t);
	uint64_t pairs;

	if (e->depth >= e->depth_max)
		return enc_refuse(e, ERR_UNSUPPORTED,
			e->seen ? "is nested too deeply"
				: "is nested too deeply, or holds itself");
	if (!lua_checkstack(e->L, 12))
		return enc_refuse(e, ERR_NOMEM, "does not fit into memory");
	if (lazy_is(e->L, t))
		return enc_refuse(e, ERR_UNSUPPORTED, "is a library; it can't travel");
	if (enc_shared(e, t))
		return 0;
	if (is_array(e->L, t, n, &pairs))
		return enc_array(e, t, n);
	return enc_map(e, t, pairs);
}

static int enc_odd(struct enc *e, int index)
{
	lua_State *L = e->L;

	if (luaL_testudata(L, index, BYTES_TYPE)) {
		size_t n;
		const char *s;

		lua_getiuservalue(L, index, 1);
		s = lua_tolstring(L, -1, &n);
		cbor_put_bytes(e->b, s ? s : "", s ? n : 0);
		lua_pop(L, 1);
		return 0;
	}
	lua_pushfstring(L, "is a %s; it can't travel", luaL_typename(L, index));
	enc_refuse(e, ERR_UNSUPPORTED, lua_tostring(L, -1));
	lua_pop(L, 1);
	return ERR_UNSUPPORTED;
}

static int enc_item(struct enc *e, int index)
{
	lua_State *L = e->L;

	if (lua_istable(L, index))
		return enc_table(e, index);
	if (lua_islightuserdata(L, index) && !lua_touserdata(L, index)) /* tos.null */
		cbor_put_null(e->b);
	else if (!put_scalar(L, index, e->b))
		return enc_odd(e, index);
	if (e->b->failed)
		return enc_refuse(e, ERR_TOO_LARGE, "makes it too large");
	return 0;
}

/* Pass 1: which tables are met more than once. */
static int find_shared(struct enc *e, int t)
{
	lua_State *L = e->L;
	int rc = 0;

	if (e->depth >= e->depth_max)
		return enc_refuse(e, ERR_UNSUPPORTED, "is nested too deeply");
	if (!lua_checkstack(L, 12))
		return enc_refuse(e, ERR_NOMEM, "does not fit into memory");
	lua_pushvalue(L, t);
	lua_rawget(L, e->seen);
	bool met = !lua_isnil(L, -1);
	lua_pop(L, 1);
	lua_pushvalue(L, t);
	if (met)
		lua_pushboolean(L, 1);
	else
		lua_pushinteger(L, 1);
	lua_rawset(L, e->seen);
	if (met)
		return 0;
	e->depth++;
	lua_pushnil(L);
	while (!rc && lua_next(L, t)) {
		e->way[e->depth - 1].text =
			lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
		e->way[e->depth - 1].number = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
		if (lua_istable(L, -1))
			rc = find_shared(e, lua_gettop(L));
		lua_pop(L, 1);
	}
	if (rc)
		lua_pop(L, 1);
	e->depth--;
	return rc;
}

static int encode(struct enc *e, int index)
{
	int rc;

	e->k->keys.max = (size_t)64 << 20;
	buf_clear(&e->k->keys);
	e->k->n_order = 0;
	e->k->em.text[0] = 0;
	rc = enc_item(e, index);
	if (!rc && e->b->failed)
		rc = enc_refuse(e, ERR_TOO_LARGE, "is too large");
	if (e->k->keys.cap > (1u << 20))
		buf_fini(&e->k->keys);
	return rc;
}

int value_encode(lua_State *L, int index, struct buf *b, struct codec *k, const char *root)
{
	struct enc e = { .L = L, .b = b, .k = k, .root = root, .depth_max = VALUE_DEPTH_MAX };

	return encode(&e, lua_absindex(L, index));
}

int state_encode(lua_State *L, int index, struct buf *b, struct codec *k, const char *root)
{
	struct enc e = { .L = L, .b = b, .k = k, .root = root, .depth_max = STATE_DEPTH_MAX };
	int rc = 0, at = lua_absindex(L, index);

	k->em.text[0] = 0;
	lua_newtable(L);
	e.seen = lua_gettop(L);
	if (lua_istable(L, at))
		rc = find_shared(&e, at);
	e.depth = 0;
	if (!rc)
		rc = encode(&e, at);
	lua_settop(L, e.seen - 1);
	return rc;
}

/* ---- decoding */

struct dec {
	lua_State *L;
	const uint8_t *p, *end;
	unsigned depth, depth_max;
	bool tags;
	int shared; /* stack index of the list of shared tables; 0: none */
	lua_Integer n_shared;
};

/* The head of an item; -1: malformed. Shortest form only. */
static int dec_head(struct dec *d, uint64_t *arg, unsigned *info)
{
	static const uint64_t least[4] = { 24, 0x100, 0x10000, 0x100000000u };
	unsigned major, n;
	uint64_t v = 0;

	if (d->p == d->end)
		return -1;
	major = *d->p >> 5;
	*info = *d->p++ & 31;
	if (*info < 24) {
		*arg = *info;
		return (int)major;
	}
	if (*info > 27)
		return -1;
	n = 1u << (*info - 24);
	if ((size_t)(d->end - d->p) < n)
		return -1;
	for (unsigned i = 0; i < n; i++)
		v = v << 8 | *d->p++;
	if (major != 7 && v < least[*info - 24])
		return -1;
	*arg = v;
	return (int)major;
}

static int dec_item(struct dec *d);

static double half_float(uint64_t v)
{
	int e = (int)(v >> 10 & 31);
	double m = (double)(v & 0x3ff), r;

	if (e == 0)
		r = ldexp(m, -24);
	else if (e == 31)
		r = m != 0 ? (double)NAN : (double)INFINITY;
	else
		r = ldexp(m + 1024, e - 25);
	return v & 0x8000 ? -r : r;
}

static int dec_simple(struct dec *d, unsigned info, uint64_t arg)
{
	lua_State *L = d->L;

	switch (info) {
	case 20:
	case 21:
		lua_pushboolean(L, info == 21);
		return 0;
	case 22:
		lua_pushnil(L);
		return 0;
	case 25:
		lua_pushnumber(L, half_float(arg));
		return 0;
	case 26: {
		uint32_t bits = (uint32_t)arg;
		float f;

		memcpy(&f, &bits, sizeof f);
		lua_pushnumber(L, (lua_Number)f);
		return 0;
	}
	case 27: {
		double f;

		memcpy(&f, &arg, sizeof f);
		lua_pushnumber(L, f);
		return 0;
	}
	default:
		return ERR_MALFORMED;
	}
}

static int dec_string(struct dec *d, int major, uint64_t n)
{
	const char *s = (const char *)d->p;

	if (n > (size_t)(d->end - d->p))
		return ERR_MALFORMED;
	if (major == 3 && !text_utf8(s, (size_t)n))
		return ERR_MALFORMED;
	lua_pushlstring(d->L, s, (size_t)n);
	d->p += n;
	return 0;
}

/* The table is made and, where it is shared, listed before its content is read: cycles. */
static void dec_table(struct dec *d, bool shared, uint64_t n_array, uint64_t n_hash)
{
	lua_State *L = d->L;

	/* Never more room in advance than a small table has: the head is only a claim. */
	lua_createtable(L, n_array < 64 ? (int)n_array : 64, n_hash < 64 ? (int)n_hash : 64);
	if (shared) {
		lua_pushvalue(L, -1);
		lua_rawseti(L, d->shared, ++d->n_shared);
	}
}

static int dec_array(struct dec *d, uint64_t n, bool shared)
{
	if (n > (size_t)(d->end - d->p))
		return ERR_MALFORMED;
	dec_table(d, shared, n, 0);
	for (uint64_t i = 1; i <= n; i++) {
		int rc = dec_item(d);

		if (rc)
			return rc;
		lua_rawseti(d->L, -2, (lua_Integer)i);
	}
	return 0;
}

static int dec_key(struct dec *d, struct slice *last)
{
	const uint8_t *from = d->p;
	size_t n;
	int rc = d->p < d->end && *d->p >> 5 >= 4 && *d->p >> 5 <= 6 ? ERR_MALFORMED
								     : dec_item(d);

	if (rc)
		return rc;
	if (lua_isnil(d->L, -1) || (lua_type(d->L, -1) == LUA_TNUMBER &&
					   lua_tonumber(d->L, -1) != lua_tonumber(d->L, -1)))
		return ERR_MALFORMED; /* nil and NaN are no keys in Lua */
	n = (size_t)(d->p - from);
	if (last->p) {
		int c = memcmp(last->p, from, last->n < n ? last->n : n);

		if (c > 0 || (c == 0 && last->n >= n))
			return ERR_MALFORMED;
	}
	last->p = from;
	last->n = n;
	return 0;
}

static int dec_map(struct dec *d, uint64_t n, bool shared)
{
	struct slice last = { NULL, 0 };

	if (n > (size_t)(d->end - d->p) / 2)
		return ERR_MALFORMED;
	dec_table(d, shared, 0, n);
	for (uint64_t i = 0; i < n; i++) {
		int rc = dec_key(d, &last);

		if (!rc)
			rc = dec_item(d);
		if (rc)
			return rc;
		lua_rawset(d->L, -3);
	}
	return 0;
}

static int dec_tag(struct dec *d, uint64_t tag)
{
	unsigned info;
	uint64_t arg;
	int major;

	if (!d->tags || (tag != TAG_SHARED && tag != TAG_REF))
		return ERR_MALFORMED;
	major = dec_head(d, &arg, &info);
	if (tag == TAG_REF) {
		if (major != 0 || arg >= (uint64_t)d->n_shared)
			return ERR_MALFORMED;
		lua_rawgeti(d->L, d->shared, (lua_Integer)arg + 1);
		return 0;
	}
	if (major == 4)
		return dec_array(d, arg, true);
	if (major == 5)
		return dec_map(d, arg, true);
	return ERR_MALFORMED;
}

static int dec_nested(struct dec *d, int major, uint64_t arg)
{
	int rc;

	if (d->depth >= d->depth_max)
		return ERR_TOO_LARGE;
	if (!lua_checkstack(d->L, 12))
		return ERR_NOMEM;
	d->depth++;
	if (major == 4)
		rc = dec_array(d, arg, false);
	else if (major == 5)
		rc = dec_map(d, arg, false);
	else
		rc = dec_tag(d, arg);
	d->depth--;
	return rc;
}

static int dec_item(struct dec *d)
{
	unsigned info;
	uint64_t arg;
	int major = dec_head(d, &arg, &info);

	switch (major) {
	case 0:
	case 1:
		if (arg > INT64_MAX)
			return ERR_MALFORMED;
		lua_pushinteger(d->L, major ? -1 - (lua_Integer)arg : (lua_Integer)arg);
		return 0;
	case 2:
	case 3:
		return dec_string(d, major, arg);
	case 4:
	case 5:
	case 6:
		return dec_nested(d, major, arg);
	case 7:
		return dec_simple(d, info, arg);
	default:
		return ERR_MALFORMED;
	}
}

static int value_push(lua_State *L, struct slice bytes, unsigned depth_max, bool tags)
{
	struct dec d = { .L = L,
		.p = bytes.p,
		.end = bytes.p + bytes.n,
		.depth_max = depth_max,
		.tags = tags };
	int top = lua_gettop(L), rc;

	if (!lua_checkstack(L, 12))
		return ERR_NOMEM;
	if (tags) {
		lua_newtable(L);
		d.shared = lua_gettop(L);
	}
	rc = dec_item(&d);
	if (!rc && d.p != d.end)
		rc = ERR_MALFORMED;
	if (rc) {
		lua_settop(L, top);
		return rc;
	}
	if (tags)
		lua_remove(L, d.shared);
	return 0;
}

int value_decode(lua_State *L, struct slice bytes)
{
	return value_push(L, bytes, CBOR_DEPTH_MAX, false);
}

int state_decode(lua_State *L, struct slice bytes)
{
	return value_push(L, bytes, STATE_DEPTH_MAX, true);
}
