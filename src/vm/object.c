/*
 * What has an identity in the API (an inbox, a folder that came, a question), and how arguments are
 * read. An object is userdata whose metatable no carrier can get hold of: what it holds can be
 * trusted.
 */
#include "vm/api.h"
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <string.h>

#define WAIT_MOST_S (366.0 * 86400)

/* Pushes their metatable. */
static void kind_push(lua_State *L, const struct object_kind *kind)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, kind) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	lua_createtable(L, 0, 6);
	luaL_setfuncs(L, kind->meta, 0);
	lua_pushstring(L, kind->name);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "__name");
	lua_setfield(L, -2, "__metatable");
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, kind);
}

void *object_new(lua_State *L, const struct object_kind *kind, size_t bytes)
{
	void *o = lua_newuserdatauv(L, bytes, 0);

	memset(o, 0, bytes);
	kind_push(L, kind);
	lua_setmetatable(L, -2);
	return o;
}

/* NULL: something else. */
void *object_of(lua_State *L, int index, const struct object_kind *kind)
{
	void *o = NULL;

	if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index))
		return NULL;
	lua_rawgetp(L, LUA_REGISTRYINDEX, kind);
	if (lua_rawequal(L, -1, -2))
		o = lua_touserdata(L, index);
	lua_pop(L, 2);
	return o;
}

/* Pushes the method that the key at 2 names, or nil. */
int method_push(lua_State *L, const luaL_Reg *methods)
{
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	while (methods->name && strcmp(methods->name, key) != 0)
		methods++;
	if (methods->name)
		lua_pushcfunction(L, methods->func);
	else
		lua_pushnil(L);
	return 1;
}

/* ---- arguments */

bool text_printable(struct slice s, uint8_t from)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < from || s.p[i] > 0x7e)
			return false;
	return true;
}

struct slice text_arg(lua_State *L, int index)
{
	struct slice s = { NULL, 0 };

	if (lua_type(L, index) == LUA_TSTRING)
		s.p = (const uint8_t *)lua_tolstring(L, index, &s.n);
	return s;
}

struct slice check_folder_name(lua_State *L, int index, int level)
{
	struct slice s = text_arg(L, index);
	bool text = s.p != NULL;

	if (!text || s.n > NAME_BYTES_MAX || !text_printable(s, 0x20)) {
		luaL_where(L, level);
		if (text)
			lua_pushliteral(
				L, "a folder's name is at most 128 printable ASCII characters");
		else
			lua_pushfstring(L, "a folder's name must be a string, not a %s",
				luaL_typename(L, index));
		lua_concat(L, 2);
		lua_error(L);
	}
	return s;
}

/* s, in ms */
lua_Integer check_time(lua_State *L, int index, double otherwise_s)
{
	double s = otherwise_s;

	if (!lua_isnoneornil(L, index)) {
		s = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : -1;
		if (!(s >= 0))
			luaL_error(L, "a time must be a number of seconds, 0 or more");
	}
	if (s > WAIT_MOST_S)
		s = WAIT_MOST_S;
	return (lua_Integer)(s * 1000 + 0.5);
}

void check_options(lua_State *L, int index)
{
	if (!lua_isnoneornil(L, index) && !lua_istable(L, index))
		luaL_error(L, "options must be a table such as { name = \"TASK\" }");
}
