/*
 * len of `utf8`, as that of Lua 5.4: it goes over a whole text, and makes room when its slice is over.
 */
#include "vm/libs.h"
#include "vm/vm.h"

#define LOOK_BYTES  ((lua_Integer)64 << 10) /* between two looks at the clock */
#define LARGEST     0x7fffffffu
#define UNICODE_END 0x10ffffu

/* Behind the sequence at s, of a text with a NUL behind it; NULL: it is none. Ones of up to six bytes, as of
 * old, if `lax`. */
static const char *sequence_end(const char *s, bool lax)
{
	static const uint32_t least[] = { UINT32_MAX, 0x80, 0x800, 0x10000, 0x200000,
		0x4000000 };
	unsigned c = (unsigned char)*s, more = 0;
	uint32_t code = 0;

	if (c < 0x80)
		return s + 1;
	for (; c & 0x40; c <<= 1) {
		unsigned next = (unsigned char)s[++more];

		if ((next & 0xc0) != 0x80)
			return NULL;
		code = (code << 6) | (next & 0x3f);
	}
	if (more == 0 || more > 5)
		return NULL;
	code |= (uint32_t)(c & 0x7f) << (more * 5);
	if (code > LARGEST || code < least[more])
		return NULL;
	if (!lax && (code > UNICODE_END || (code >= 0xd800 && code <= 0xdfff)))
		return NULL;
	return s + more + 1;
}

static lua_Integer place(lua_Integer i, size_t n)
{
	if (i >= 0)
		return i;
	return 0u - (size_t)i > n ? 0 : (lua_Integer)n + i + 1;
}

/* Stack: s, last place, lax, how many so far. ctx: the place to go on. */
static int len_more(lua_State *L, int status, lua_KContext ctx)
{
	const char *s = lua_tostring(L, 1);
	lua_Integer at = ctx, last = lua_tointeger(L, 2), n = lua_tointeger(L, 4);
	bool lax = lua_toboolean(L, 3);

	(void)status;
	while (at <= last) {
		lua_Integer until = last - at < LOOK_BYTES ? last : at + LOOK_BYTES;

		for (; at <= until; n++) {
			const char *end = sequence_end(s + at, lax);

			if (!end) {
				lua_pushnil(L);
				lua_pushinteger(L, at + 1);
				return 2;
			}
			at = end - s;
		}
		lua_pushinteger(L, n);
		lua_replace(L, 4);
		lib_pause(L, (lua_KContext)at, len_more);
	}
	lua_pushinteger(L, n);
	return 1;
}

int utf_len(lua_State *L)
{
	size_t n;
	lua_Integer first, last;

	luaL_checklstring(L, 1, &n);
	first = place(luaL_optinteger(L, 2, 1), n);
	last = place(luaL_optinteger(L, 3, -1), n);
	luaL_argcheck(L, 1 <= first && first - 1 <= (lua_Integer)n, 2,
		"initial position out of bounds");
	luaL_argcheck(L, last - 1 < (lua_Integer)n, 3, "final position out of bounds");
	lua_settop(L, 4);
	lua_pushinteger(L, last - 1);
	lua_replace(L, 2);
	lua_pushboolean(L, lua_toboolean(L, 4));
	lua_replace(L, 3);
	lua_pushinteger(L, 0);
	lua_replace(L, 4);
	return len_more(L, LUA_OK, (lua_KContext)(first - 1));
}
