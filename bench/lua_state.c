/*
 * N plain Lua states, each with the six libraries that a carrier has, the same text and the same
 * state: bytes of memory each takes, as a line of JSON.
 *
 *   lua_state FILE N
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

static double resident_bytes(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	char line[128];
	double kib = 0;

	if (!f)
		bench_die("smaps_rollup");
	while (fgets(line, sizeof line, f))
		if (strncmp(line, "Pss:", 4) == 0)
			kib = strtod(line + 4, NULL);
	fclose(f);
	return kib * 1024;
}

static lua_State *state_new(const char *file)
{
	static const luaL_Reg libs[] = { { LUA_GNAME, luaopen_base },
		{ LUA_COLIBNAME, luaopen_coroutine }, { LUA_TABLIBNAME, luaopen_table },
		{ LUA_STRLIBNAME, luaopen_string }, { LUA_UTF8LIBNAME, luaopen_utf8 },
		{ LUA_MATHLIBNAME, luaopen_math } };
	lua_State *L = luaL_newstate();

	if (!L)
		bench_die("luaL_newstate");
	for (size_t i = 0; i < sizeof libs / sizeof *libs; i++) {
		luaL_requiref(L, libs[i].name, libs[i].func, 1);
		lua_pop(L, 1);
	}
	if (luaL_dofile(L, file) != LUA_OK)
		bench_die(lua_tostring(L, -1));
	lua_getglobal(L, "fill");
	lua_newtable(L);
	if (lua_pcall(L, 1, 1, 0) != LUA_OK)
		bench_die(lua_tostring(L, -1));
	lua_setfield(L, LUA_REGISTRYINDEX, "self");
	lua_gc(L, LUA_GCCOLLECT);
	return L;
}

int main(int argc, char **argv)
{
	size_t n = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	double before;

	if (n == 0) {
		fprintf(stderr, "usage: lua_state FILE N\n");
		return 2;
	}
	state_new(argv[1]);
	before = resident_bytes();
	for (size_t i = 0; i < n; i++)
		state_new(argv[1]);
	printf("{\"n\": %zu, \"bytes_each\": %.0f}\n", n,
		(resident_bytes() - before) / (double)n);
	return 0;
}
