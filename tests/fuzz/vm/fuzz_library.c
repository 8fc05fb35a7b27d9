/*
 * What src/vm puts into `string` and `table`, led by the input: the call, a pattern, a subject, a
 * replacement. Done once with a pause wherever one can be made and once without: the results are
 * the same. Where they are results (and not that it takes too many steps) the library that comes
 * with Lua has the same ones, and where they are an error it has one, too.
 */
#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "vm/libs.h"
#include "vm/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD        6
#define INPUT_MOST  512
#define SUBJECT_MAX ((size_t)128 << 10)
#define PAUSES_MOST 24

static const char driver[] =
	"local string, table, concat, op, p, s, r, n, m = ...\n"
	"local out, t = {}, {}\n"
	"local function say(...)\n"
	"  for i = 1, select('#', ...) do\n"
	"    local v = (select(i, ...))\n"
	"    out[#out + 1] = math.type(v) or type(v)\n"
	"    out[#out + 1] = tostring(v)\n"
	"  end\n"
	"end\n"
	"for i = 1, op > 9 and math.min(#s, 4000) or 0 do t[i] = s:sub(i, i + #s % 4) end\n"
	"if m % 2 == 1 then setmetatable(t, {}) end\n"
	"if op == 0 then say(string.find(s, p, n))\n"
	"elseif op == 1 then say(string.find(s, p, n, true))\n"
	"elseif op == 2 then say(string.match(s, p, n))\n"
	"elseif op == 3 then\n"
	"  local k = 0\n"
	"  for a, b, c in string.gmatch(s, p, n) do\n"
	"    say(a, b, c)\n"
	"    k = k + 1\n"
	"    if k == 8 then break end\n"
	"  end\n"
	"elseif op == 4 then say(string.gsub(s, p, r, m > 0 and m or nil))\n"
	"elseif op == 5 then say(string.gsub(s, p, { [r] = p, a = 1, b = false, [1] = 'x' }))\n"
	"elseif op == 6 then\n"
	"  say(string.gsub(s, p, function(a, b) if a ~= r then return b or n end end))\n"
	"elseif op == 7 then say(string.rep(s:sub(1, 4000), n, r))\n"
	"elseif op == 8 then say(string.upper(s), string.lower(s), string.reverse(s))\n"
	"elseif op == 9 then say(string.format(p, s, n, r, m, s, n / 3))\n"
	"elseif op == 10 then say(table.concat(t, r, m < 0 and n or 1, m < 0 and m or #t))\n"
	"elseif op == 11 then table.sort(t) say(concat(t, ','))\n"
	"elseif op == 12 then\n"
	"  table.insert(t, n, r)\n"
	"  say(table.remove(t, m))\n"
	"  table.insert(t, p)\n"
	"  say(concat(t, ','))\n"
	"elseif op == 13 then\n"
	"  local to = table.move(t, n, math.min(m, n + 3000), #p - #r, #r > 3 and {} or nil)\n"
	"  for i = -500, 5000 do say(to[i]) end\n"
	"elseif op == 14 then say(table.unpack(t, n, math.min(m, 300)))\n"
	"elseif op == 15 then\n"
	"  table.sort(t, function(a, b) return a > b end)\n"
	"  say(concat(t, ','))\n"
	"end\n"
	"return concat(out, '\\0')\n";

struct input {
	unsigned op;
	int n, m;
	struct slice pattern, subject, replacement;
};

static struct vm_carrier carrier;
static char subject[SUBJECT_MAX];

/* A table with what the one at the top has: the library before ours goes in. */
static void copy_library(lua_State *L)
{
	lua_newtable(L);
	for (lua_pushnil(L); lua_next(L, -3);) {
		lua_pushvalue(L, -2);
		lua_insert(L, -2);
		lua_settable(L, -4);
	}
}

static lua_State *open_state(void)
{
	lua_State *L = luaL_newstate();

	must(L);
	carrier.cap = (size_t)16 << 20;
	carrier.L = L;
	*(struct vm_carrier **)lua_getextraspace(L) = &carrier;
	luaL_openlibs(L);
	lua_getglobal(L, "string");
	copy_library(L);
	lua_setfield(L, LUA_REGISTRYINDEX, "their string");
	lib_open_string(L);
	lua_setfield(L, LUA_REGISTRYINDEX, "our string");
	lua_getglobal(L, "table");
	copy_library(L);
	lua_setfield(L, LUA_REGISTRYINDEX, "their table");
	lib_open_table(L);
	lua_setfield(L, LUA_REGISTRYINDEX, "our table");
	must(luaL_loadstring(L, driver) == LUA_OK);
	lua_setfield(L, LUA_REGISTRYINDEX, "driver");
	return L;
}

static void push_slice(lua_State *L, struct slice s)
{
	lua_pushlstring(L, (const char *)s.p, s.n);
}

enum outcome { GIVEN, FAILED, TOO_MUCH };

/* On L's top: the results in one string, or the message. */
static enum outcome run(lua_State *L, const struct input *in, bool ours, bool pauses)
{
	lua_State *co = lua_newthread(L);
	int n = 0, status, n_args = 9;
	unsigned n_pauses = 0;

	lua_getfield(co, LUA_REGISTRYINDEX, "driver");
	lua_getfield(co, LUA_REGISTRYINDEX, ours ? "our string" : "their string");
	lua_getfield(co, LUA_REGISTRYINDEX, ours ? "our table" : "their table");
	lua_getfield(co, LUA_REGISTRYINDEX, "their table");
	lua_getfield(co, -1, "concat");
	lua_remove(co, -2);
	lua_pushinteger(co, in->op);
	push_slice(co, in->pattern);
	push_slice(co, in->subject);
	push_slice(co, in->replacement);
	lua_pushinteger(co, in->n);
	lua_pushinteger(co, in->m);
	vm_sched.preempt = pauses;
	do {
		carrier.preempted = false;
		status = lua_resume(co, L, n_args, &n);
		n_args = 0;
		must(status != LUA_YIELD || (pauses && carrier.preempted && n == 0));
	} while (status == LUA_YIELD && n_pauses++ < PAUSES_MOST);
	vm_sched.preempt = 0;
	if (status == LUA_YIELD) {
		lua_pushliteral(L, "not to its end");
		return TOO_MUCH;
	}
	must(status == LUA_ERRRUN || (status == LUA_OK && n == 1));
	luaL_tolstring(co, -1, NULL);
	lua_xmove(co, L, 1);
	if (status == LUA_OK)
		return GIVEN;
	return strstr(lua_tostring(L, -1), "too complex") || carrier.refused ? TOO_MUCH
									     : FAILED;
}

static int compare(lua_State *L)
{
	const struct input *in = lua_touserdata(L, 1);
	enum outcome first = run(L, in, true, true), second;

	if (first == TOO_MUCH)
		return 0;
	second = run(L, in, true, false);
	must(second == first);
	must(lua_rawequal(L, -1, -3));
	second = run(L, in, false, false);
	must(second == first || (second == TOO_MUCH && first == FAILED));
	must(first != GIVEN || lua_rawequal(L, -1, -3));
	return 0;
}

static struct slice cut(const uint8_t **p, size_t *left, size_t n)
{
	struct slice s = { *p, n < *left ? n : *left };

	*p += s.n;
	*left -= s.n;
	return s;
}

/* So often that pauses can be made, in calls whose time goes with it only. */
static void repeat(struct slice *s, unsigned doublings)
{
	size_t n = s->n;

	if (n)
		memcpy(subject, s->p, n);
	while (doublings-- && 2 * n <= sizeof(subject)) {
		memcpy(subject + n, subject, n);
		n *= 2;
	}
	*s = (struct slice){ (const uint8_t *)subject, n };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static lua_State *L;
	static unsigned n_runs;
	size_t left = size > INPUT_MOST ? INPUT_MOST : size;
	const uint8_t *p = data + HEAD;
	struct input in;

	if (left < HEAD)
		return 0;
	left -= HEAD;
	in.op = data[0] % 16;
	in.n = (int8_t)data[2];
	in.m = (int8_t)data[3];
	in.pattern = cut(&p, &left, data[4]);
	in.replacement = cut(&p, &left, data[5]);
	in.subject = (struct slice){ p, left };
	repeat(&in.subject, data[1] % 16);
	/* %p: a long string has another address each time. */
	if (in.op == 9 && in.pattern.n && memchr(in.pattern.p, 'p', in.pattern.n))
		return 0;
	if (!L)
		L = open_state();
	carrier.refused = false;
	lua_pushcfunction(L, compare);
	lua_pushlightuserdata(L, &in);
	must(lua_pcall(L, 1, 0, 0) == LUA_OK);
	must(lua_gettop(L) == 0);
	if (++n_runs % 256 == 0) {
		lua_close(L); /* as a sanitizer wants to see its memory */
		L = NULL;
	}
	return 0;
}
