/* An inbox: a named, bounded queue of folders with one reader. No I/O, no clock. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/frame.h"

struct inbox_item {
	struct inbox_item *next;
	enum post_kind kind;
	uint64_t tag;
	int64_t deadline_at_ms; /* monotonic; 0 none */
	size_t bytes;
	char sender[NAME_BYTES_MAX + 1];
	uint8_t trace[TRACE_BYTES];
	struct slice folder; /* owned, behind the struct */
	struct slice info;   /* encoded map or empty; owned */
};
struct inbox {
	char name[64];
	uint32_t flags, bound;
	size_t n, bytes, bytes_max; /* bytes_max 0: only the count is bounded */
	uint64_t posted, taken, refused;
	struct inbox_item *first, *last;
};
void inbox_init(
	struct inbox *in, const char *name, uint32_t bound, size_t bytes_max, uint32_t flags);
void inbox_fini(struct inbox *in);
/* copies; ERR_FULL, ERR_NOMEM */
int inbox_push(
	struct inbox *in, const struct post *p, struct slice info, int64_t deadline_at_ms);
/* the caller frees with inbox_item_free; NULL when empty */
struct inbox_item *inbox_take(struct inbox *in);
void inbox_item_free(struct inbox_item *it);
/* borrows; deadline_ms is left 0: the caller has the clock */
void inbox_item_post(const struct inbox_item *it, const char *dest, struct post *out);
