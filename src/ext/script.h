/* Extensions in Lua: a file that declares one, run in a tos-ext as any other. */
#pragma once

#include <stdbool.h>

#include "base/err.h"

struct tos_extension;

/* Is what lies there text rather than a shared object? */
bool script_is(const char *path);
/*
 * Run it, which declares, and make the constant of what it has declared; for the life of the
 * process, and once in it. ERR_SYNTAX, ERR_FAULT (it failed), ERR_MALFORMED (it declares nothing,
 * or wrongly), ERR_IO, ERR_TOO_LARGE.
 */
int script_open(const char *path, const struct tos_extension **spec, struct errmsg *em);
