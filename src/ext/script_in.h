/* What script.c has for the other files of the interpreter. All in tos-ext only. */
#pragma once

#include <stdint.h>

#include <lua.h>

struct tos_ext;

/* Raises before start. */
struct tos_ext *script_started(lua_State *L);
/* Pushes true, or nil, code, text (NULL: that of rc); returns how many. */
int script_result(lua_State *L, int rc, const char *text);
/* In the main state: call what stands below its n_args arguments. ERR_FAULT: it is logged, and
 * function and arguments are gone. */
int script_call(int n_args, int n_results);
/* Call a function that luaL_ref() has kept, and forget it. `arguments`, which may raise, gets arg
 * and returns what the function is to be given. */
void script_call_once(intptr_t ref, lua_CFunction arguments, void *arg);
