/*
 * The string and table functions that a carrier could stay in for long, written so that they can
 * be left: between steps they make room for others when their slice is over (lib_pause), and
 * where they can't, they end with an error.
 */
#pragma once

#include <lauxlib.h>
#include <lua.h>

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

/* Put ours into the library at the top. */
void lib_open_string(lua_State *L);
void lib_open_table(lua_State *L);
