/*
 * The code of carriers: bundles, each once for all carriers that have it, and what of their files was
 * compiled here. Compiled code never comes from outside this process.
 */
#pragma once

#include <lua.h>

#include "base/err.h"
#include "wire/slice.h"

struct code;

/* The code of an encoded bundle, which is copied if it is not here yet; ERR_MALFORMED, with em. */
int code_ref(struct slice bundle, struct code **out, struct errmsg *em);
/* It may be kept for the next carrier that has it. */
void code_unref(struct code *k);
size_t code_bytes(const struct code *k);
size_t code_n_files(const struct code *k);
/* The name and content of the i-th, both borrowed. */
struct slice code_file(const struct code *k, size_t i, struct slice *name);

#define CODE_NO_FILE (-1)
/* Push the function of the file, or the message; a LUA_ status, or CODE_NO_FILE: nothing is pushed. */
int code_load(lua_State *L, struct code *k, const char *name);
/* Forget what nobody uses. */
void code_forget(void);
