/*
 * What a carrier finds, by the files that make it.
 *
 * lazy.c: the tables, filled as they are used. strlib.c, tablib.c, utf8lib.c: the string and table functions
 * that a carrier could stay in for long, written so that they can be left: between steps they make
 * room for others when their slice is over (lib_pause), and where they can't, they end with an
 * error. env.c: coroutines and what the base library must not have as it is. api.c, post.c, mail.c and
 * sys.c: `tos`. prelude.c: what of it is written in Lua.
 */
#pragma once

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>

#include "wire/slice.h"

/* ---- lazy.c */

enum lazy_table {
	LAZY_G,
	LAZY_COROUTINE,
	LAZY_MATH,
	LAZY_STRING,
	LAZY_TABLE,
	LAZY_UTF8,
	LAZY_TOS, /* the one that is not Lua's: the last */
	LAZY_TABLES
};

#define LAZY_TYPE "tos.lazy" /* in the registry: their metatable */

/* Find Lua's own functions, once in a process. */
void lazy_init(void);
/* Make the tables of a new state. */
void lazy_open(lua_State *L);
/* Is the value one of these tables, with entries that are not there yet? */
static inline bool lazy_is(lua_State *L, int index)
{
	bool is;

	if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
		return false;
	lua_getfield(L, LUA_REGISTRYINDEX, LAZY_TYPE);
	is = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return is;
}
/* Then put all of them there: before it is looked at otherwise than by a key. */
void lazy_fill(lua_State *L, int index);
/* Push "error", "string.find", ... as they were at first, whatever the carrier has put there. */
bool lazy_push(lua_State *L, const char *name);

/* ---- prelude.c */

/* In the order of meson.build. */
enum prelude_part { PRE_FOLDER, PRE_BRIEFCASE, PRE_CODE, PRE_REQUIRE, PRELUDE_PARTS };

/* Push the table of what the part gives, which runs when it is asked for the first time. */
void part_push(lua_State *L, enum prelude_part part);

/* ---- strlib.c, tablib.c, utf8lib.c */

/*
 * Called now and then by a function that goes on for long. Where its slice is over and it may
 * yield it does, and k(L, LUA_YIELD, ctx) goes on; where it may not, an error is raised once it
 * is overdue. Otherwise it returns.
 */
void lib_pause(lua_State *L, lua_KContext ctx, lua_KFunction k);
/* The pieces 1..n of the table at the top, n in its field "n", as one string; for a return. */
int lib_join(lua_State *L);
/* The value at the top becomes the next piece of the table at index. */
void lib_piece(lua_State *L, int index);

extern lua_CFunction lua_string_format; /* Lua's own, which ours calls */
int str_find(lua_State *L);
int str_format(lua_State *L);
int str_gmatch(lua_State *L);
int str_gsub(lua_State *L);
int str_lower(lua_State *L);
int str_match(lua_State *L);
int str_rep(lua_State *L);
int str_reverse(lua_State *L);
int str_upper(lua_State *L);
int tab_concat(lua_State *L);
int tab_insert(lua_State *L);
int tab_move(lua_State *L);
int tab_remove(lua_State *L);
int tab_sort(lua_State *L);
int tab_unpack(lua_State *L);
int utf_len(lua_State *L);

/* Put ours into the library at the top: for tests. */
void lib_open_string(lua_State *L);
void lib_open_table(lua_State *L);

/* ---- env.c */

int base_collectgarbage(lua_State *L);
int base_getmetatable(lua_State *L);
int base_next(lua_State *L);
int base_rawget(lua_State *L);
int base_rawset(lua_State *L);
int base_setmetatable(lua_State *L);
int co_close(lua_State *L);
int co_create(lua_State *L);
int co_resume(lua_State *L);
int co_wrap(lua_State *L);
int co_yield (lua_State *L);

/* ---- api.c, post.c, mail.c */

int api_checkpoint(lua_State *L);
int api_clone(lua_State *L);
int api_go(lua_State *L);
int api_kernel(lua_State *L);
int api_log(lua_State *L);
int api_print(lua_State *L);
int api_self(lua_State *L);
int api_sleep(lua_State *L);
int api_ask(lua_State *L);
int api_await(lua_State *L);
int api_call(lua_State *L);
int api_post(lua_State *L);
int api_inbox(lua_State *L);

/* ---- sys.c */

int sys_bytes(lua_State *L);
int sys_clock(lua_State *L);
int sys_limits(lua_State *L);
int sys_now(lua_State *L);
int sys_usage(lua_State *L);

/* Push nil, code, text; returns 3. */
int push_failure(lua_State *L, int rc, const char *text);
/* What a DONE says: true, or nil, code, text. */
int done_more(lua_State *L, int status, lua_KContext ctx);
/* Freeze the carrier and wait for the kernel's answer; the budgets of a clone are the table at 2. */
int carrier_go(lua_State *L, struct slice dest);
int carrier_checkpoint(lua_State *L);
int carrier_clone(lua_State *L, struct slice dest);
/* Push the store of the folder at index; false, and nothing is pushed: it is none. */
bool folder_store(lua_State *L, int index);
/* Push the primitive of that name; false: there is none. */
bool sys_push(lua_State *L, const char *name);
/* boot(entry, function, state, failure): the first thing that runs of a carrier. */
int boot(lua_State *L);
