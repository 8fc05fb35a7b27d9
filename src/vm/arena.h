/*
 * The heap of one carrier: small blocks in slabs of 1 KiB, by size, slabs in pages that are its own;
 * larger blocks from malloc. All of it can be given back without knowing what is in it, and what
 * lies in pages can be folded: compressed, and its memory given back until it is unfolded at the
 * same addresses.
 *
 * Sanitizer builds have every block from malloc, so that overruns and leaks are seen; there nothing
 * is folded.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

#define ARENA_CLASSES 14

struct arena {
	struct list partial[ARENA_CLASSES]; /* slabs with room */
	struct list full, empty, large;
	uint8_t **pages;
	uint32_t n_pages, cap_pages;
	size_t bytes; /* of pages and large blocks */
	uint8_t *
		folded; /* what is in the pages, while nobody may look at them; NULL: it is there */
	size_t n_folded;
};

void arena_init(struct arena *a);
/* As lua_Alloc; old is the size asked for when p was given. NULL without memory: p stays. */
void *arena_resize(struct arena *a, void *p, size_t old, size_t n);
void arena_drop(struct arena *a);
/* Until arena_unfold() no block may be touched. False: it did not pay, and nothing has changed. */
bool arena_fold(struct arena *a);
void arena_unfold(struct arena *a);
