/* Paths: "a,b|c,@all" as people write it, and as an array of entries on the wire. */
#pragma once

#include "base/err.h"

struct tos_value;

/* Split and check; `@group` entries stay as they are. Array of texts. */
int path_parse(const char *text, struct tos_value **out, struct errmsg *em);
/* Replace each @all by the members (in the order given). ERR_NOT_FOUND names an unknown group. */
int path_expand(
	struct tos_value *path, const char *const *kernels, size_t n, struct errmsg *em);
/* The nth alternative of an entry "b|c"; 0 and name copied (64 bytes), or ERR_NOT_FOUND past
 * the last. */
int path_choice(const char *entry, unsigned nth, char name[64]);
/* Whether `rest` is a suffix of `whole` (both arrays of texts). */
#include <stdbool.h>
bool path_is_suffix(const struct tos_value *rest, const struct tos_value *whole);
