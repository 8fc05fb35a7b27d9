/* The home's side of families: the clones of carriers launched here (kernel/carrier/family.h). */
#pragma once

#include "kernel/kernel.h"

struct home_record;

/* The records that show a clone's birth, into the arguments of a report. */
void family_evidence(const struct resident *r, struct tos_value *args);
/* The record of that clone, made now if `args` show its birth. ERR_NOT_FOUND they do not, ERR_STATE
 * its parent is not known yet, ERR_LIMIT, ERR_EXISTS, ERR_SIGNATURE it must not be. */
int family_take(struct kernel *k, const struct tos_value *args, struct home_record **out,
	struct errmsg *em);
/* The same of a resident with its chain. */
int family_arrived(struct kernel *k, const struct resident *r, struct home_record **out,
	struct errmsg *em);
void cloned_verb(struct kernel *k, struct request *rq);
/* owner.c */
void owner_verb(struct kernel *k, struct request *rq);
/* FAMILY {name, wait_ms}: takes rq. */
void family_wait(struct kernel *k, struct home_record *h, struct request *rq, uint32_t wait_ms);
void families_tick(struct kernel *k, int64_t now_ms);
void family_waiters_drop(struct kernel *k, const char *client);
/* A wish for h and all that come of it, those that are yet to register included. Takes rq. */
void family_want(
	struct kernel *k, struct home_record *h, const char *wanted, struct request *rq);
/* Names of its clones, those long ended too. */
struct tos_value *family_children(struct kernel *k, const struct home_record *h);
