/* Shared objects with an extension in them: opening, and what they declare as one value. */
#pragma once

#include "base/err.h"

struct tos_extension;
struct tos_value;

/* Open, find the constant, check it. *lib goes to library_close(). ERR_NOT_FOUND, ERR_VERSION,
 * ERR_MALFORMED, ERR_NAME. */
/* The same without a look at what it declares. */
int library_find(
	const char *path, void **lib, const struct tos_extension **spec, struct errmsg *em);
int library_open(
	const char *path, void **lib, const struct tos_extension **spec, struct errmsg *em);
void library_close(void *lib);

/* The `hello` of wire/extproto.h; NULL where memory is gone or a text is not UTF-8. */
struct tos_value *library_describe(const struct tos_extension *spec);
