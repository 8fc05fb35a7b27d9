/*
 * Who may report what of a carrier to its home, and who may be where in its chain of hop records
 * (doc/protocol.md, "Home"; doc/decisions/forks.md). And what a kernel can have written here by
 * sending what is refused: bounded for each kernel.
 */
#pragma once

#include "kernel/kernel.h"
#include "wire/records.h"

enum evidence {
	EVIDENCE_NONE, /* nothing shows that it ever had the carrier */
	EVIDENCE_GOOD, /* the carrier is there as far as the home can know */
	EVIDENCE_GAP, /* it was handed to it, but how it got from the known place is not shown */
	EVIDENCE_PASSED, /* it had it before the place that the home knows got it */
	EVIDENCE_FORK,   /* its chain leaves the known place out: a copy that must not be */
};
/* `args` are a report's: hop, the record by which `who` got it, and on request hops, those since
 * the known place. Changes nothing. */
enum evidence evidence_judge(struct kernel *k, const struct home_record *h, const char *who,
	const struct tos_value *args, const struct incarnation *e);
/* Another kernel handed it to `who`, in incarnation e. */
bool evidence_handed(struct kernel *k, const struct home_record *h, const char *who,
	const struct tos_value *args, const struct incarnation *e);
/* A chain that was verified already: does it pass the place that the home knows? */
bool evidence_passes(
	const struct home_record *h, const struct records *hops, const struct hop *last);
/* The records since the last departure from that kernel, not before n, as hops into args. */
void evidence_chain(
	const struct resident *r, const char *kernel, uint64_t n, struct tos_value *args);
/* All of them. */
void evidence_chain_all(const struct resident *r, struct tos_value *args);
/* Tell log, audit and metrics of a second copy. */
void evidence_forked(struct kernel *k, const struct home_record *h, const char *who,
	const struct tos_value *args);
