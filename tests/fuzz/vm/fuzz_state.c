/*
 * The decoder of `self`: any bytes are refused or become a table; what was read is written,
 * read and written again to the same bytes, sharing and cycles included.
 */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "vm/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf first, second;
static struct codec codec;

static int round_trip(lua_State *L)
{
	const struct slice *s = lua_touserdata(L, 1);

	lua_settop(L, 0);
	if (state_decode(L, *s)) {
		must(lua_gettop(L) == 0);
		return 0;
	}
	must(lua_gettop(L) == 1);
	if (state_encode(L, 1, &first, &codec, "self"))
		return 0; /* only where a shared table lies too deep on another way */
	must(state_decode(L, (struct slice){ first.data, first.len }) == 0);
	must(state_encode(L, 2, &second, &codec, "self") == 0);
	must(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
	must(lua_gettop(L) == 2);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice s = { data, size };
	lua_State *L = luaL_newstate();

	must(L);
	buf_clear(&first);
	buf_clear(&second);
	lua_pushcfunction(L, round_trip);
	lua_pushlightuserdata(L, &s);
	must(lua_pcall(L, 1, 0, 0) == LUA_OK);
	lua_close(L);
	codec_fini(&codec);
	buf_fini(&first);
	buf_fini(&second);
	return 0;
}
