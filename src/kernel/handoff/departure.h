/* Of depart.c and doubt.c: a departure across callbacks, and what ends it. */
#pragma once

#include "kernel/kernel.h"

/* Which departure an answer is about: one that comes late must not settle the next. */
struct departure {
	uint64_t n;
	struct incarnation e;
	char name[NAME_BYTES_MAX + 1];
};

struct departure *departure_new(const struct resident *r); /* freed with free() */
/* The carrier, if it still departs by that; else NULL. */
struct resident *departing(struct kernel *k, const struct departure *d);

/* It is gone: the destination, or the home for it, has said so. */
void move_accepted(struct resident *r);

/* Ask the home, which was journaled; takes rq, which may be NULL. */
void resolve_ask(struct resident *r, struct request *rq);
