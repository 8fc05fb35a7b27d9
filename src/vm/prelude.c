/*
 * The part of the API that is written in Lua: prelude/NAME.lua, compiled by the build, each run when
 * something of it is asked for the first time.
 *
 * A part is called with `sys`, which gives it primitives and Lua's own functions by name: nothing that
 * the carrier has changed in its globals by then is seen by it. What a part returns, a table, is kept.
 */
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <string.h>

#include "vm_prelude.h"

static const char *const part_names[PRELUDE_PARTS] = { "part.folder", "part.briefcase",
	"part.code", "part.require" };

/* As the build compiled it; its text where this Lua is another than the build's. */
static void part_load(lua_State *L, const struct prelude_file *f)
{
	if (luaL_loadbufferx(L, (const char *)f->compiled, f->n_compiled, "=[tos]", "b") ==
		LUA_OK)
		return;
	lua_pop(L, 1);
	if (luaL_loadbufferx(L, (const char *)f->text, f->n_text, "=[tos]", "t") != LUA_OK)
		lua_error(L);
}

static bool part_push_named(lua_State *L, const char *name)
{
	for (int i = 0; i < PRELUDE_PARTS; i++)
		if (strcmp(part_names[i], name) == 0) {
			part_push(L, (enum prelude_part)i);
			return true;
		}
	return false;
}

/* sys(name...) -> value... */
static int sys_get(lua_State *L)
{
	int n = lua_gettop(L);

	luaL_checkstack(L, n + 8, NULL);
	for (int i = 1; i <= n; i++) {
		const char *name = luaL_checkstring(L, i);

		if (!sys_push(L, name) && !lazy_push(L, name) && !part_push_named(L, name))
			return luaL_error(L, "the prelude has no %s", name);
	}
	return n;
}

void part_push(lua_State *L, enum prelude_part part)
{
	luaL_checkstack(L, 4, NULL);
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &part_names[part]) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	part_load(L, &vm_prelude[part]);
	lua_pushcfunction(L, sys_get);
	lua_call(L, 1, 1);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &part_names[part]);
}
