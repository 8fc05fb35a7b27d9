/*
 * What one extension declared, as the kernel keeps it: inboxes with what waits in them, and
 * properties. Made from the `hello` of wire/extproto.h, which may come from a hostile process.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "ext/body.h"

struct tos_value;

#define EXT_BOUND_MAX 65536u

/* A folder as it was delivered to a tos-ext: kept until that has taken it, so that it can be
 * delivered to another one. */
struct kept {
	uint64_t token; /* 0: no answer is wanted */
	size_t n;
	uint8_t frame[];
};

struct decl_inbox {
	char name[64], doc[160];
	uint32_t flags, bound;
	uint32_t waiting; /* delivered and not yet taken */
	uint64_t posted, taken, refused;
	uint32_t *bytes; /* ring of `bound` sizes, of what waits */
	uint32_t head;
	struct kept **kept; /* ring of what waits, where that is kept; or NULL */
	uint32_t unsent;    /* the last so many were not delivered: nobody can take them */
};

struct decl_property {
	char path[64], type[8], unit[16], doc[160], value[EXT_VALUE_BYTES];
	char initial[EXT_VALUE_BYTES]; /* what it declared */
	int64_t min, max;
	bool read_only;
};

struct decl {
	char name[64], doc[160], privileges[128];
	struct decl_inbox *inbox;
	size_t n_inboxes;
	struct decl_property *property;
	size_t n_properties;
	size_t waiting_bytes;
};

/* ERR_VERSION, ERR_MALFORMED, ERR_NAME, ERR_NOMEM. */
int decl_read(const struct tos_value *hello, uint32_t default_bound, struct decl **out,
	struct errmsg *em);
void decl_free(struct decl *d);
struct decl_inbox *decl_inbox_find(struct decl *d, const char *name);
struct decl_property *decl_property_find(struct decl *d, const char *path);
/* The same inboxes with the same flags and bounds, in the same order. */
bool decl_same_inboxes(const struct decl *a, const struct decl *b);

/* One folder of so many bytes more waits, or ERR_FULL. */
int decl_waits(struct decl *d, struct decl_inbox *in, size_t bytes);
/* Undo the last decl_waits(). */
void decl_unwait(struct decl *d, struct decl_inbox *in);
/* n folders were taken; ERR_MALFORMED if so many don't wait. */
int decl_taken(struct decl *d, struct decl_inbox *in, uint64_t n);
/* From now on what waits is kept. Before anything waits. ERR_NOMEM. */
int decl_keep(struct decl *d);
/* What was just said to wait (decl_waits()), as it was delivered; takes it. */
void decl_kept(struct decl_inbox *in, struct kept *kept);
/* The first that waits and is kept, which does not wait any more; NULL when there is none. The
 * caller's to free. */
struct kept *decl_take_kept(struct decl *d, struct decl_inbox *in, size_t *bytes);
/* All that waited is gone. */
void decl_emptied(struct decl *d);
