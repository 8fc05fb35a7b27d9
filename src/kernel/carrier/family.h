/*
 * Families: a carrier and its clones (doc/protocol.md, "Clones"). Each is a carrier of its own, with an
 * identity, a name, a home record and a hand-off of its own; what they share is the ticket, whose
 * budgets are split among them. family.c has names, identities and budgets, clone.c makes a clone
 * where its parent is; families.h of kernel/home is the home's side.
 */
#pragma once

#include "kernel/kernel.h"

/* ---- family.c */

/* The carrier's identity: the ticket's for the original, else SHA-256 of that and the suffix. */
void family_id(const uint8_t root[DIGEST_BYTES], const char *suffix, uint8_t out[DIGEST_BYTES]);
/* Name, suffix, root and id of a resident whose ticket is known. */
void family_is(struct resident *r, const uint8_t root[DIGEST_BYTES], const char *suffix);
/* Is one the parent of the other, by their suffixes? */
bool family_parent(const char *parent, const char *child);
/* "host0#42" of "host0#42.1.3"; its suffix, ".1.3". */
void family_root_name(const char *name, char out[NAME_BYTES_MAX + 1]);
const char *family_suffix(const char *name);
/* "host0#42.1" of "host0#42.1.3"; "" of an original. */
void family_parent_name(const char *name, char out[NAME_BYTES_MAX + 1]);

/* What it may use in its life: the ticket's, or a clone's share of them as its birth record in r->hops
 * says. ERR_SIGNATURE if that is not there. */
int family_budget(struct resident *r, struct errmsg *em);
/* What it asks of a host: the budgets less what it has given to its clones. */
void family_asked(const struct resident *r, int64_t out[LIMIT_COUNT]);
/* Its own departures so far, as its chain shows. */
uint64_t family_hops(const struct resident *r);

/* Into and from the envelope's counters. */
void family_counters(const struct resident *r, struct tos_value *counters);
int family_counted(struct resident *r, struct slice counters); /* encoded; ERR_MALFORMED */
/* Whose clone it is, into a row of PS. */
void family_row(const char *name, struct tos_value *row);

/* ---- clone.c */

/* CLONE of a tos-vm: takes path. Answered by DONE, now or later. */
struct clone_asked {
	uint64_t seq; /* the tos-vm's, of this answer */
	struct slice dest, state, briefcase;
	struct tos_value *path;
	int64_t split[LIMIT_COUNT]; /* -1: not said */
};
void clone_begin(struct resident *r, struct clone_asked *a);
void clone_cancel(struct resident *r); /* it ends, or its run does */
/* What was made in this run counts for the next from here on, or not any more. */
void clone_checkpoint(struct resident *r);
void clone_forget(struct resident *r);
/* Into and from its row in the store. */
void clone_put(const struct resident *r, struct tos_value *row);
void clone_load(struct resident *r, struct slice clone_base, struct slice clones);
/* Another incarnation goes on than the one that may have made clones elsewhere. */
void clone_renumber(struct resident *r);
void shells_spawn(struct kernel *k, struct request *rq);
