/*
 * The heap of one carrier: small blocks in slabs of 1 KiB, by size, larger ones from malloc. All
 * of it can be given back without knowing what is in it.
 *
 * Sanitizer builds have every block from malloc, so that overruns and leaks are seen.
 */
#pragma once

#include <stddef.h>

#include "base/list.h"

#define ARENA_CLASSES 12

struct arena {
	struct list partial[ARENA_CLASSES]; /* slabs with room */
	struct list full, large;
	size_t bytes; /* of slabs and large blocks */
};

void arena_init(struct arena *a);
/* As lua_Alloc; old is the size asked for when p was given. NULL without memory: p stays. */
void *arena_resize(struct arena *a, void *p, size_t old, size_t n);
void arena_drop(struct arena *a);
