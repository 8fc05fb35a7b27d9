/*
 * What of a carrier travels: its briefcase and path, which lie in its heap as tables of encoded
 * elements (stores), and self. Out of its heap into CBOR, and back.
 */
#include "vm/vm.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define ENVELOPE_SLACK ((size_t)64 << 10)

/* ---- out of its heap */

static void put_stores_key(lua_State *L, const char *name, int *index)
{
	lua_getfield(L, LUA_REGISTRYINDEX, name);
	*index = lua_gettop(L);
}

void store_put(lua_State *L, int index, struct buf *b)
{
	lua_Integer first, last;

	index = lua_absindex(L, index);
	luaL_checkstack(L, 4, NULL);
	lua_getfield(L, index, "first");
	lua_getfield(L, index, "last");
	first = lua_tointeger(L, -2);
	last = lua_tointeger(L, -1);
	lua_pop(L, 2);
	cbor_put_array(b, (uint64_t)(last - first + 1));
	for (lua_Integer i = first; i <= last; i++) {
		size_t n = 0;
		const char *s;

		lua_rawgeti(L, index, i);
		s = lua_tolstring(L, -1, &n);
		cbor_put_raw(b, (struct slice){ (const uint8_t *)s, n });
		lua_pop(L, 1);
	}
}

struct name {
	const char *s; /* held by the table */
	size_t n;
};

/* The order of the encoded texts: shorter first, then bytewise. */
static int name_compare(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	if (x->n != y->n)
		return x->n < y->n ? -1 : 1;
	return memcmp(x->s, y->s, x->n);
}

void briefcase_put(lua_State *L, struct buf *b)
{
	size_t n = 0, at = 0;
	struct name *names;
	int t;

	luaL_checkstack(L, 10, NULL);
	put_stores_key(L, REG_BRIEFCASE, &t);
	for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1))
		n++;
	names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
	for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
		names[at].s = lua_tolstring(L, -2, &names[at].n);
		at++;
	}
	qsort(names, n, sizeof *names, name_compare);
	cbor_put_map(b, n);
	for (size_t i = 0; i < n; i++) {
		cbor_put_text_n(b, names[i].s, names[i].n);
		lua_pushlstring(L, names[i].s, names[i].n);
		lua_rawget(L, t);
		store_put(L, -1, b);
		lua_pop(L, 1);
	}
	lua_settop(L, t - 1);
}

static int freeze_body(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	size_t most = (size_t)c->limit[LIMIT_state];
	int t;

	buf_clear(&c->port->enc_state);
	c->port->enc_state.max = most + ENVELOPE_SLACK;
	put_stores_key(L, REG_SELF, &t);
	c->freeze_rc = state_encode(L, t, &c->port->enc_state, &c->port->codec, "self");
	if (c->freeze_rc) {
		bool large = c->port->enc_state.failed;

		err_set(&c->port->em, c->freeze_rc, "%s%s", large ? "limit state: " : "",
			c->port->codec.em.text);
		if (large)
			c->freeze_rc = ERR_LIMIT;
		return 0;
	}
	/* In the deterministic order of the keys' encodings. */
	cbor_put_map(&c->port->enc, 3);
	cbor_put_text(&c->port->enc, "path");
	put_stores_key(L, REG_PATH, &t);
	store_put(L, t, &c->port->enc);
	cbor_put_text(&c->port->enc, "state");
	cbor_put_bytes(&c->port->enc, c->port->enc_state.data, c->port->enc_state.len);
	cbor_put_text(&c->port->enc, "briefcase");
	briefcase_put(L, &c->port->enc);
	if (c->port->enc.failed || c->port->enc.len > most)
		c->freeze_rc = err_set(&c->port->em, ERR_LIMIT,
			"limit state: self, briefcase and path take more than %zu bytes", most);
	return 0;
}

int carrier_freeze(struct vm_carrier *c, lua_State *L)
{
	c->freeze_rc = 0;
	buf_clear(&c->port->enc);
	c->port->enc.max = (size_t)c->limit[LIMIT_state] + ENVELOPE_SLACK;
	if (!lua_checkstack(L, 8))
		return err_set(&c->port->em, ERR_LIMIT, "limit memory: no room to freeze it");
	lua_pushcfunction(L, freeze_body);
	if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
		lua_pop(L, 1);
		c->freeze_rc =
			err_set(&c->port->em, ERR_LIMIT, "limit memory: no room to freeze it");
	}
	buf_fini(&c->port->enc_state);
	return c->freeze_rc;
}

/* ---- into it */

int store_push(lua_State *L, struct slice array, bool only_text)
{
	struct cbor_cursor c;
	lua_Integer bytes = 0;
	uint64_t n;
	int top = lua_gettop(L);

	cbor_init(&c, array.p, array.n);
	n = cbor_open_array_max(&c, array.n);
	lua_createtable(L, n < 1024 ? (int)n : 1024, 4);
	for (uint64_t i = 1; i <= n && !c.rc; i++) {
		enum cbor_kind kind = cbor_peek(&c);
		struct slice item = cbor_any(&c);

		if (only_text && kind != CBOR_TEXT)
			cbor_fail(&c, ERR_MALFORMED);
		if (c.rc)
			break;
		lua_pushlstring(L, (const char *)item.p, item.n);
		lua_rawseti(L, -2, (lua_Integer)i);
		bytes += (lua_Integer)item.n;
	}
	cbor_close(&c);
	if (cbor_finish(&c)) {
		lua_settop(L, top);
		return ERR_MALFORMED;
	}
	lua_pushinteger(L, 1);
	lua_setfield(L, -2, "first");
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, "last");
	lua_pushinteger(L, bytes);
	lua_setfield(L, -2, "bytes");
	return 0;
}

static bool folder_name_ok(struct slice name)
{
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] < 0x20 || name.p[i] > 0x7e)
			return false;
	return name.n <= NAME_BYTES_MAX;
}

int briefcase_push(lua_State *L, struct slice map)
{
	struct cbor_cursor c;
	uint64_t n;
	int top = lua_gettop(L);

	cbor_init(&c, map.p, map.n);
	n = cbor_open_map_max(&c, map.n);
	lua_newtable(L);
	for (uint64_t i = 0; i < n && !c.rc; i++) {
		struct slice name = cbor_text(&c, 0, NAME_BYTES_MAX), elements = cbor_any(&c);

		if (c.rc)
			break;
		if (!folder_name_ok(name)) {
			cbor_fail(&c, ERR_NAME);
			break;
		}
		lua_pushlstring(L, (const char *)name.p, name.n);
		if (store_push(L, elements, false)) {
			cbor_fail(&c, ERR_MALFORMED);
			break;
		}
		lua_rawset(L, -3);
	}
	cbor_close(&c);
	if (cbor_finish(&c)) {
		lua_settop(L, top);
		return ERR_MALFORMED;
	}
	return 0;
}
