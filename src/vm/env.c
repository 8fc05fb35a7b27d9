/*
 * What of Lua's libraries a carrier must not have as it is: coroutines pass our waits on, and
 * nothing of the base library runs when nobody looks (finalizers). How chunks are compiled. What a
 * carrier finds in all stands in lazy.c; a test holds the list of all reachable globals.
 */
#include "vm/libs.h"
#include "vm/vm.h"

#include <lauxlib.h>
#include <string.h>

static const char wait_mark; /* its address, yielded, says: pass it on to the process's loop */

int env_wait(lua_State *L, enum vm_wait wait, uint64_t id, int64_t until_ms, lua_KContext ctx,
	lua_KFunction k)
{
	struct vm_carrier *c = carrier_of(L);

	if (!lua_isyieldable(L) || c->unyieldable)
		return luaL_error(L,
			"cannot wait here (inside a metamethod or message handler that C calls)");
	c->wait = wait;
	c->wait_id = id;
	c->wait_until_ms = until_ms;
	lua_pushlightuserdata(L, (void *)&wait_mark);
	return lua_yieldk(L, 1, ctx, k);
}

bool env_is_wait(lua_State *co, int n_results)
{
	return n_results == 1 && lua_touserdata(co, -1) == (const void *)&wait_mark;
}

/* ---- coroutine */

static lua_State *co_arg(lua_State *L)
{
	lua_State *co = lua_tothread(L, 1);

	luaL_argexpected(L, co, 1, "coroutine");
	return co;
}

/* The results, or the message, are moved to L: their number, or -1 and the message. CO_WAITS:
 * co waits, CO_PAUSED: its slice is over; so must L, and so is L's. */
#define CO_WAITS  (-2)
#define CO_PAUSED (-3)

/* Resume co from L, and have the signal handlers know whose turn it is. */
static int co_switch(lua_State *L, lua_State *co, int n_args, int *n)
{
	struct vm_carrier *c = carrier_of(L);
	bool stuck = !lua_isyieldable(L);
	int status;

	c->unyieldable += stuck;
	sched_thread(co);
	status = lua_resume(co, L, n_args, n);
	sched_thread(L);
	c->unyieldable -= stuck;
	return status;
}

static int co_step(lua_State *L, lua_State *co, int n_args)
{
	int n, status;

	if (!lua_checkstack(co, n_args)) {
		lua_pushliteral(L, "too many arguments to resume");
		return -1;
	}
	lua_xmove(L, co, n_args);
	status = co_switch(L, co, n_args, &n);
	if (status == LUA_YIELD && carrier_of(L)->preempted)
		return CO_PAUSED;
	if (status == LUA_YIELD && env_is_wait(co, n)) {
		lua_pop(co, 1);
		return CO_WAITS;
	}
	if (status != LUA_OK && status != LUA_YIELD) {
		lua_xmove(co, L, 1);
		return -1;
	}
	if (!lua_checkstack(L, n + 1)) {
		lua_pop(co, n);
		lua_pushliteral(L, "too many results to resume");
		return -1;
	}
	lua_xmove(co, L, n);
	return n;
}

static int resume_more(lua_State *L, int status, lua_KContext ctx);

/* Leave L as co was left. */
static int pass_on(lua_State *L, int n, lua_KFunction k)
{
	if (n == CO_PAUSED)
		return lua_yieldk(L, 0, 0, k);
	lua_pushlightuserdata(L, (void *)&wait_mark);
	return lua_yieldk(L, 1, 0, k);
}

static int resume_end(lua_State *L, int n)
{
	if (n <= CO_WAITS)
		return pass_on(L, n, resume_more);
	lua_pushboolean(L, n >= 0);
	n = n < 0 ? 1 : n;
	lua_insert(L, -(n + 1));
	return n + 1;
}

static int resume_more(lua_State *L, int status, lua_KContext ctx)
{
	(void)status;
	(void)ctx;
	lua_settop(L, 1);
	return resume_end(L, co_step(L, co_arg(L), 0));
}

int co_resume(lua_State *L)
{
	return resume_end(L, co_step(L, co_arg(L), lua_gettop(L) - 1));
}

/* Close co's variables, whose __close runs in it; nothing of that can yield. */
static int co_reset(lua_State *L, lua_State *co)
{
	struct vm_carrier *c = carrier_of(L);
	int status;

	c->unyieldable++;
	sched_thread(co);
	status = lua_resetthread(co);
	sched_thread(L);
	c->unyieldable--;
	return status;
}

static int wrap_more(lua_State *L, int status, lua_KContext ctx);

static int wrap_end(lua_State *L, lua_State *co, int n)
{
	if (n <= CO_WAITS)
		return pass_on(L, n, wrap_more);
	if (n >= 0)
		return n;
	int status = lua_status(co);
	if (status != LUA_OK && status != LUA_YIELD) { /* it failed: close its variables */
		co_reset(L, co);
		lua_settop(co, 0);
	}
	if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
		luaL_where(L, 1);
		lua_insert(L, -2);
		lua_concat(L, 2);
	}
	return lua_error(L);
}

static int wrap_more(lua_State *L, int status, lua_KContext ctx)
{
	lua_State *co = lua_tothread(L, lua_upvalueindex(1));

	(void)status;
	(void)ctx;
	lua_settop(L, 0);
	return wrap_end(L, co, co_step(L, co, 0));
}

static int wrap_call(lua_State *L)
{
	lua_State *co = lua_tothread(L, lua_upvalueindex(1));

	return wrap_end(L, co, co_step(L, co, lua_gettop(L)));
}

int co_create(lua_State *L)
{
	lua_State *co;

	luaL_checktype(L, 1, LUA_TFUNCTION);
	co = lua_newthread(L);
	lua_pushvalue(L, 1);
	lua_xmove(L, co, 1);
	return 1;
}

int co_wrap(lua_State *L)
{
	co_create(L);
	lua_pushcclosure(L, wrap_call, 1);
	return 1;
}

/* As of lcorolib.c: only what is suspended or dead. */
int co_close(lua_State *L)
{
	lua_State *co = co_arg(L);
	lua_Debug ar;
	int status = lua_status(co);

	if (co == L || (status == LUA_OK && lua_getstack(co, 0, &ar)))
		return luaL_error(L, "cannot close a running coroutine");
	if (co_reset(L, co) == LUA_OK) {
		lua_pushboolean(L, 1);
		return 1;
	}
	lua_pushboolean(L, 0);
	lua_xmove(co, L, 1);
	return 2;
}

int co_yield (lua_State *L)
{
	if (L == carrier_of(L)->co)
		return luaL_error(L, "attempt to yield from outside a coroutine");
	return lua_yield(L, lua_gettop(L));
}

/* ---- base */

/* A finalizer runs where no hook and no deadline reaches; Lua marks for it at this call only.
 */
int base_setmetatable(lua_State *L)
{
	int t = lua_type(L, 2);

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argexpected(L, t == LUA_TNIL || t == LUA_TTABLE, 2, "nil or table");
	lazy_fill(L, 1);
	if (t == LUA_TTABLE) {
		lua_pushliteral(L, "__gc");
		if (lua_rawget(L, 2) != LUA_TNIL)
			return luaL_error(L, "__gc is not for carriers");
		lua_pop(L, 1);
	}
	if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
		return luaL_error(L, "cannot change a protected metatable");
	lua_settop(L, 2);
	lua_setmetatable(L, 1);
	return 1;
}

int base_collectgarbage(lua_State *L)
{
	if (strcmp(luaL_optstring(L, 1, "count"), "count") != 0)
		return luaL_error(L, "collectgarbage offers \"count\" only");
	lua_pushnumber(L, (lua_Number)carrier_of(L)->used / 1024);
	return 1;
}

/* Those that look at a table otherwise than by a key, and see it whole. */

int base_getmetatable(lua_State *L)
{
	luaL_checkany(L, 1);
	lazy_fill(L, 1);
	if (!lua_getmetatable(L, 1)) {
		lua_pushnil(L);
		return 1;
	}
	luaL_getmetafield(L, 1, "__metatable");
	return 1;
}

int base_next(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lazy_fill(L, 1);
	lua_settop(L, 2);
	if (lua_next(L, 1))
		return 2;
	lua_pushnil(L);
	return 1;
}

int base_rawget(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checkany(L, 2);
	lazy_fill(L, 1);
	lua_settop(L, 2);
	lua_rawget(L, 1);
	return 1;
}

int base_rawset(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checkany(L, 2);
	luaL_checkany(L, 3);
	lazy_fill(L, 1);
	lua_settop(L, 3);
	lua_rawset(L, 1);
	return 1;
}

/* ---- chunks */

int chunk_compile(lua_State *L, const char *text, size_t n, const char *name)
{
	/* A first line "#!..." is for the shell; its end of line stays, so that lines keep
	 * their numbers. */
	if (n && text[0] == '#') {
		const char *eol = memchr(text, '\n', n);

		n = eol ? n - (size_t)(eol - text) : 0;
		text = eol ? eol : "";
	}
	lua_pushfstring(L, "@%s", name);
	int status = luaL_loadbufferx(L, text, n, lua_tostring(L, -1), "t");
	lua_remove(L, -2);
	return status;
}
