/* Of this room: whom the home believes what (claims.c). */
#pragma once

#include "kernel/handoff/evidence.h"

/* The record of the carrier that a request means, by name and id; NULL: none here. A clone that
 * shows its birth is registered by that. */
struct home_record *claim_record(struct kernel *k, const struct request *rq);
/* Where claim_record() found none: answers rq. */
void claim_unknown(struct kernel *k, struct request *rq);
/* The kernel that claims it. */
const char *claim_from(const struct kernel *k, const struct request *rq);
/* A raise or an end is being journaled: true, and it was told to come again. */
bool claim_busy(const struct home_record *h, struct request *rq);
/* What the claim shows about its sender; this kernel's own are believed. */
enum evidence claim_judge(struct kernel *k, const struct home_record *h,
	const struct request *rq, const struct incarnation *e);
/* Counted and logged; rq is still the caller's to answer. */
void claim_ignored(struct kernel *k, const struct home_record *h, const struct request *rq);
/* It names an incarnation that this home never granted: audited, and still the caller's to
 * answer. One that an operator forced is taken over. */
bool claim_raised(struct kernel *k, struct home_record *h, const struct request *rq);
/* How the carrier came to its sender is not shown: answers rq, which is said again. */
void claim_way_unknown(struct kernel *k, struct home_record *h, struct request *rq);
