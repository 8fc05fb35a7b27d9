/*
 * What the files of the API share: object.c, post.c, mail.c and api.c. The functions themselves are in
 * libs.h, as carriers find them.
 *
 * `vm_sched.host` is set where C memory of ours is being changed, and never where Lua code of the
 * carrier may run: in its metamethods.
 */
#pragma once

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>

#include "vm/vm.h"
#include "wire/slice.h"

#define INBOX_NAME_MAX 63

/* ---- object.c: what follows raises an error where an argument is none such */

struct object_kind {
	const char *name;
	const luaL_Reg *meta;
};
/* Pushes a new one of so many zero bytes, which the kind's __gc would have to free. */
void *object_new(lua_State *L, const struct object_kind *kind, size_t bytes);
/* What it holds, while it is on the stack; NULL: something else. */
void *object_of(lua_State *L, int index, const struct object_kind *kind);
/* Pushes the method that the key at 2 names, or nil; returns 1. */
int method_push(lua_State *L, const luaL_Reg *methods);

/* Every byte is `from` to '~'. */
bool text_printable(struct slice s, uint8_t from);
/* The string at index, lent by the stack; its p is NULL: it is none. */
struct slice text_arg(lua_State *L, int index);
/* The name of a folder at index; the error is one at that level of the stack. */
struct slice check_folder_name(lua_State *L, int index, int level);
/* A time in s, returned in ms; otherwise_s: where none is given. */
lua_Integer check_time(lua_State *L, int index, double otherwise_s);
void check_options(lua_State *L, int index);

/* ---- post.c */

/* The elements of what stands at `value`, as an array, into port->enc. Returns the folder's name, lent
 * by the stack: that of the options or of the folder at `value`, else "". spread: a sequence's items
 * are elements. Raises errors. */
struct slice elements_encode(lua_State *L, int value, int options, bool spread);
/* Post the folder `name` whose elements are in port->enc, within the carrier's rates. ERR_TOO_LARGE,
 * ERR_LIMIT; port->em says why. deadline_ms: from now, 0 none. */
int post_send(struct vm_carrier *c, unsigned kind, struct slice dest, uint64_t tag,
	lua_Integer deadline_ms, struct slice name);
/* Pushes nil, code and the text of port->em; returns 3. */
int post_failure(lua_State *L, int rc);
/* One more within so many in a second? */
bool bucket_take(struct vm_bucket *k, int64_t per_s);
