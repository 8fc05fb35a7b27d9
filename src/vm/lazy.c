/*
 * The tables in which a carrier finds its functions: the globals, the standard libraries, `tos`.
 *
 * They are empty when it starts. What is looked up in one is put there then, so that a carrier pays
 * for what it uses; whatever looks at one otherwise than by a key has it filled first (lazy_fill),
 * so that Lua code sees no difference. A bit for each entry says that it was put there once: what
 * was taken out, or replaced, stays so.
 *
 * Lua's own functions are known by their addresses, found once in a state of the process's own, and
 * nothing that a carrier changes in its tables changes what lazy_push() gives to the prelude.
 */
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "base/mem.h"

enum kind {
	OF_LUA,  /* a function of Lua's library */
	OF_OURS, /* fn */
	VALUE,   /* fn pushes it */
	TABLE,   /* one of these tables */
	PART,    /* a part of the prelude returns it */
	RANDOM,  /* with the state that both functions share */
};

struct item {
	const char *name;
	enum kind kind;
	lua_CFunction fn;
	unsigned which; /* table or part */
};

#define LUA(name)                                                                              \
	{                                                                                      \
		name, OF_LUA, NULL, 0                                                          \
	}
#define OURS(name, fn)                                                                         \
	{                                                                                      \
		name, OF_OURS, fn, 0                                                           \
	}
#define VAL(name, fn)                                                                          \
	{                                                                                      \
		name, VALUE, fn, 0                                                             \
	}
#define TAB(name, which)                                                                       \
	{                                                                                      \
		name, TABLE, NULL, which                                                       \
	}
#define PRE(name, which)                                                                       \
	{                                                                                      \
		name, PART, NULL, which                                                        \
	}
#define N_OF(items) (sizeof(items) / sizeof(*(items)))

static int push_version(lua_State *L)
{
	lua_pushliteral(L, LUA_VERSION);
	return 1;
}

static int push_huge(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)__builtin_huge_val());
	return 1;
}

static int push_pi(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)3.141592653589793238462643383279502884);
	return 1;
}

static int push_maxinteger(lua_State *L)
{
	lua_pushinteger(L, LUA_MAXINTEGER);
	return 1;
}

static int push_mininteger(lua_State *L)
{
	lua_pushinteger(L, LUA_MININTEGER);
	return 1;
}

static int push_charpattern(lua_State *L)
{
	lua_pushliteral(L, "[\0-\x7F\xC2-\xFD][\x80-\xBF]*");
	return 1;
}

/* Under the name with the dot errors of Lua's own call it. */
static int push_format(lua_State *L)
{
	lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_pushcfunction(L, lua_string_format);
	lua_setfield(L, -2, "string.format");
	lua_pop(L, 1);
	lua_pushcfunction(L, str_format);
	return 1;
}

static int push_null(lua_State *L)
{
	lua_pushlightuserdata(L, NULL);
	return 1;
}

/* clang-format off */
static struct item globals[] = {
	LUA("assert"), OURS("collectgarbage", base_collectgarbage), TAB("coroutine", LAZY_COROUTINE),
	LUA("error"), OURS("getmetatable", base_getmetatable), LUA("ipairs"), TAB("math", LAZY_MATH),
	OURS("next", base_next), LUA("pairs"), LUA("pcall"), OURS("print", api_print), LUA("rawequal"),
	OURS("rawget", base_rawget), LUA("rawlen"), OURS("rawset", base_rawset),
	PRE("require", PRE_REQUIRE), LUA("select"), OURS("setmetatable", base_setmetatable),
	TAB("string", LAZY_STRING), TAB("table", LAZY_TABLE), LUA("tonumber"), TAB("tos", LAZY_TOS),
	LUA("tostring"), LUA("type"), TAB("utf8", LAZY_UTF8), LUA("xpcall"), TAB("_G", LAZY_G),
	VAL("_VERSION", push_version),
};
static struct item coroutine_items[] = {
	OURS("close", co_close), OURS("create", co_create), LUA("isyieldable"), OURS("resume", co_resume),
	LUA("running"), LUA("status"), OURS("wrap", co_wrap), OURS("yield", co_yield),
};
/* Debian's Lua has functions of 5.2 besides; a carrier must not come to need them. */
static struct item math_items[] = {
	LUA("abs"), LUA("acos"), LUA("asin"), LUA("atan"), LUA("ceil"), LUA("cos"), LUA("deg"), LUA("exp"),
	LUA("floor"), LUA("fmod"), VAL("huge", push_huge), LUA("log"), LUA("max"),
	VAL("maxinteger", push_maxinteger), LUA("min"), VAL("mininteger", push_mininteger), LUA("modf"),
	VAL("pi", push_pi), LUA("rad"), { "random", RANDOM, NULL, 0 }, { "randomseed", RANDOM, NULL, 0 },
	LUA("sin"), LUA("sqrt"), LUA("tan"), LUA("tointeger"), LUA("type"), LUA("ult"),
};
static struct item string_items[] = {
	LUA("byte"), LUA("char"), OURS("find", str_find), VAL("format", push_format),
	OURS("gmatch", str_gmatch), OURS("gsub", str_gsub), LUA("len"), OURS("lower", str_lower),
	OURS("match", str_match), LUA("pack"), LUA("packsize"), OURS("rep", str_rep),
	OURS("reverse", str_reverse), LUA("sub"), LUA("unpack"), OURS("upper", str_upper),
};
static struct item table_items[] = {
	OURS("concat", tab_concat), OURS("insert", tab_insert), OURS("move", tab_move), LUA("pack"),
	OURS("remove", tab_remove), OURS("sort", tab_sort), OURS("unpack", tab_unpack),
};
static struct item utf8_items[] = {
	LUA("char"), VAL("charpattern", push_charpattern), LUA("codepoint"), LUA("codes"), OURS("len", utf_len),
	LUA("offset"),
};
static struct item tos_items[] = {
	OURS("ask", api_ask), OURS("await", api_await), PRE("briefcase", PRE_BRIEFCASE),
	OURS("bytes", sys_bytes), OURS("call", api_call), OURS("checkpoint", api_checkpoint),
	OURS("clock", sys_clock), OURS("clone", api_clone), PRE("folder", PRE_FOLDER), OURS("go", api_go),
	OURS("inbox", api_inbox), OURS("kernel", api_kernel), OURS("limits", sys_limits),
	OURS("log", api_log), OURS("now", sys_now), VAL("null", push_null), PRE("path", PRE_FOLDER),
	OURS("post", api_post), OURS("self", api_self), OURS("sleep", api_sleep), OURS("usage", sys_usage),
};
/* clang-format on */

static const struct table {
	const char *name;
	struct item *items;
	size_t n;
} tables[LAZY_TABLES] = {
	[LAZY_G] = { LUA_GNAME, globals, N_OF(globals) },
	[LAZY_COROUTINE] = { LUA_COLIBNAME, coroutine_items, N_OF(coroutine_items) },
	[LAZY_MATH] = { LUA_MATHLIBNAME, math_items, N_OF(math_items) },
	[LAZY_STRING] = { LUA_STRLIBNAME, string_items, N_OF(string_items) },
	[LAZY_TABLE] = { LUA_TABLIBNAME, table_items, N_OF(table_items) },
	[LAZY_UTF8] = { LUA_UTF8LIBNAME, utf8_items, N_OF(utf8_items) },
	[LAZY_TOS] = { "tos", tos_items, N_OF(tos_items) },
};

/* What strings do in arithmetic. */
static luaL_Reg string_meta[] = { { "__add", NULL }, { "__sub", NULL }, { "__mul", NULL },
	{ "__mod", NULL }, { "__pow", NULL }, { "__div", NULL }, { "__idiv", NULL },
	{ "__unm", NULL }, { NULL, NULL } };
lua_CFunction lua_string_format;

/* ---- Lua's own functions */

static lua_CFunction function_at_top(lua_State *L, const char *name)
{
	lua_CFunction f;

	lua_getfield(L, -1, name);
	f = lua_tocfunction(L, -1);
	must(f);
	lua_pop(L, 1);
	return f;
}

static void functions_find(lua_State *L)
{
	static const luaL_Reg libs[] = { { LUA_GNAME, luaopen_base },
		{ LUA_COLIBNAME, luaopen_coroutine }, { LUA_MATHLIBNAME, luaopen_math },
		{ LUA_STRLIBNAME, luaopen_string }, { LUA_TABLIBNAME, luaopen_table },
		{ LUA_UTF8LIBNAME, luaopen_utf8 }, { NULL, NULL } };

	for (const luaL_Reg *l = libs; l->name; l++)
		luaL_requiref(L, l->name, l->func, 1);
	lua_settop(L, 0);
	lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	for (int t = 0; t < LAZY_TOS; t++) {
		lua_getfield(L, -1, tables[t].name);
		for (size_t i = 0; i < tables[t].n; i++)
			if (tables[t].items[i].kind == OF_LUA)
				tables[t].items[i].fn =
					function_at_top(L, tables[t].items[i].name);
		lua_pop(L, 1);
	}
	lua_getglobal(L, LUA_STRLIBNAME);
	lua_string_format = function_at_top(L, "format");
	lua_pushliteral(L, "");
	lua_getmetatable(L, -1);
	for (luaL_Reg *r = string_meta; r->name; r++)
		r->func = function_at_top(L, r->name);
}

void lazy_init(void)
{
	lua_State *L;

	if (lua_string_format)
		return;
	L = luaL_newstate();
	must(L);
	functions_find(L);
	lua_close(L);
}

/* ---- opening */

static int table_find(const struct vm_carrier *c, const void *p)
{
	for (int t = 0; t < LAZY_TABLES; t++)
		if (c->lazy[t] == p)
			return t;
	return -1;
}

static int item_find(int t, const char *name)
{
	for (size_t i = 0; i < tables[t].n; i++)
		if (strcmp(tables[t].items[i].name, name) == 0)
			return (int)i;
	return -1;
}

static bool is_open(const struct vm_carrier *c, int t, size_t i)
{
	return c->opened[t] >> i & 1;
}

static void table_push(lua_State *L, unsigned t)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &tables[t]);
}

/* The fields of the table at the top become all items of this kind, in whatever table. */
static void group_put(lua_State *L, enum kind kind, unsigned which)
{
	struct vm_carrier *c = carrier_of(L);
	int from = lua_gettop(L);

	for (unsigned t = 0; t < LAZY_TABLES; t++)
		for (size_t i = 0; i < tables[t].n; i++) {
			const struct item *it = &tables[t].items[i];

			if (it->kind != kind || it->which != which || is_open(c, (int)t, i))
				continue;
			table_push(L, t);
			lua_pushstring(L, it->name);
			lua_getfield(L, from, it->name);
			lua_rawset(L, -3);
			lua_pop(L, 1);
			c->opened[t] |= UINT64_C(1) << i;
		}
	lua_pop(L, 1);
}

/* Put it into the table at index. */
static void item_open(lua_State *L, int index, int t, size_t i)
{
	struct vm_carrier *c = carrier_of(L);
	const struct item *it = &tables[t].items[i];

	luaL_checkstack(L, 8, NULL);
	if (it->kind == PART) {
		part_push(L, (enum prelude_part)it->which);
		group_put(L, PART, it->which);
		return;
	}
	if (it->kind == RANDOM) {
		luaopen_math(L);
		group_put(L, RANDOM, 0);
		return;
	}
	lua_pushstring(L, it->name);
	if (it->kind == TABLE)
		table_push(L, it->which);
	else if (it->kind == VALUE)
		it->fn(L);
	else
		lua_pushcfunction(L, it->fn);
	lua_rawset(L, index);
	c->opened[t] |= UINT64_C(1) << i;
}

/* The item of the table at 1 that the key at 2 names is there from here on, if there is one. */
static void open_key(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);
	int t = table_find(c, lua_topointer(L, 1)), i;

	if (t < 0 || lua_type(L, 2) != LUA_TSTRING)
		return;
	i = item_find(t, lua_tostring(L, 2));
	if (i >= 0 && !is_open(c, t, (size_t)i))
		item_open(L, 1, t, (size_t)i);
}

static int lazy_index(lua_State *L)
{
	lua_settop(L, 2);
	open_key(L);
	lua_rawget(L, 1);
	return 1;
}

static int lazy_newindex(lua_State *L)
{
	lua_settop(L, 3);
	open_key(L);
	lua_rawset(L, 1);
	return 0;
}

static int lazy_pairs(lua_State *L)
{
	lua_settop(L, 1);
	lazy_fill(L, 1);
	lua_pushcfunction(L, base_next);
	lua_insert(L, 1);
	lua_pushnil(L);
	return 3;
}

void lazy_fill(lua_State *L, int index)
{
	int t;

	if (!lazy_is(L, index))
		return;
	index = lua_absindex(L, index);
	t = table_find(carrier_of(L), lua_topointer(L, index));
	for (size_t i = 0; t >= 0 && i < tables[t].n; i++)
		if (!is_open(carrier_of(L), t, i))
			item_open(L, index, t, i);
	lua_pushnil(L);
	lua_setmetatable(L, index);
}

/* "error", "string.find", ...: pushed as they are in Lua, whatever the carrier has put there. */
bool lazy_push(lua_State *L, const char *name)
{
	const char *dot = strchr(name, '.');

	for (int t = 0; t < LAZY_TABLES; t++) {
		size_t n = strlen(tables[t].name);
		bool global = t == LAZY_G && !dot;
		int i;

		if (!global && (!dot || (size_t)(dot - name) != n ||
				       memcmp(name, tables[t].name, n) != 0))
			continue;
		i = item_find(t, global ? name : dot + 1);
		if (i < 0)
			return false;
		const struct item *it = &tables[t].items[i];

		if (it->kind == VALUE)
			it->fn(L);
		else if (it->kind == TABLE)
			table_push(L, it->which);
		else if (it->fn)
			lua_pushcfunction(L, it->fn);
		else
			return false;
		return true;
	}
	return false;
}

/* ---- a new state */

static void metatable_new(lua_State *L)
{
	static const luaL_Reg meta[] = { { "__index", lazy_index },
		{ "__newindex", lazy_newindex }, { "__pairs", lazy_pairs }, { NULL, NULL } };

	lua_createtable(L, 0, 3);
	luaL_setfuncs(L, meta, 0);
	lua_pushvalue(L, -1);
	lua_setfield(L, LUA_REGISTRYINDEX, LAZY_TYPE);
}

static void strings_open(lua_State *L)
{
	lua_pushliteral(L, "");
	lua_createtable(L, 0, 10);
	luaL_setfuncs(L, string_meta, 0);
	table_push(L, LAZY_STRING);
	lua_setfield(L, -2, "__index");
	lua_pushliteral(L, "string");
	lua_setfield(L, -2, "__metatable");
	lua_setmetatable(L, -2);
	lua_pop(L, 1);
}

void lazy_open(lua_State *L)
{
	struct vm_carrier *c = carrier_of(L);

	metatable_new(L);
	/* There tracebacks look for names. */
	lua_createtable(L, 0, LAZY_TABLES);
	for (int t = 0; t < LAZY_TABLES; t++) {
		if (t == LAZY_G)
			lua_pushglobaltable(L);
		else
			lua_newtable(L);
		c->lazy[t] = lua_topointer(L, -1);
		c->opened[t] = 0;
		lua_pushvalue(L, -3);
		lua_setmetatable(L, -2);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, &tables[t]);
		lua_setfield(L, -2, tables[t].name);
	}
	lua_setfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_pop(L, 1);
	strings_open(L);
}
