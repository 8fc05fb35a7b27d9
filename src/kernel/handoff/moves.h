/* The hand-off, as other rooms see it: moves, outcomes, doubts, incarnations. */
#pragma once

#include "kernel/kernel.h"

/* How long the journal keeps an answer or a departure after the ticket has expired. */
#define KEEP_AFTER_MS ((int64_t)7 * 86400000)

extern const struct verb handoff_verbs[];
void move_begin(struct resident *r, struct request *rq, const char *dest, bool entry,
	uint32_t timeout_ms);
void move_cancel(struct resident *r);
/* The arguments of an OFFER. */
struct tos_value *offer_args(const struct resident *r);
void outcome_begin(struct resident *r);
void handoff_link_up(struct kernel *k, const char *peer);
void handoff_link_down(struct kernel *k, const char *peer);
void handoff_tick(struct kernel *k, int64_t now_ms);
int handoff_load(struct kernel *k, struct errmsg *em);
/* What has arrived is answered once it runs, which its tos-vm says, or soon after. */
void handoff_answers_init(struct kernel *k);
void handoff_started(struct resident *r);
void handoff_answer_all(struct kernel *k);
void handoff_voids(struct kernel *k, const char *peer);
/* A void for that kernel has been journaled: its link is kept up until it has acknowledged. */
void handoff_void_due(struct kernel *k, const char *dest);
/* What had no answer though its link stayed up is said again. */
void handoff_voids_tick(struct kernel *k, int64_t now_ms);
void handoff_voids_begin(struct kernel *k); /* those that were left at the last stop */
void handoff_expire(struct kernel *k);
/* Sign what has waited for it: as many as there are with one signature. */
void handoff_sign(struct kernel *k);
struct tos_value *incarnation_value(const struct incarnation *e);
int incarnation_read(const struct tos_value *v, struct incarnation *out);
int incarnation_pick(struct slice encoded, struct incarnation *out);
/* ticket_expires_ms: of the carrier's ticket; 0 not known */
void incarnation_learn(struct kernel *k, const uint8_t id[DIGEST_BYTES],
	const struct incarnation *e, int64_t ticket_expires_ms);
void incarnations_expire(struct kernel *k);
/* Ask the home whose the carrier is: journaled, then repeated until it has answered. rq may be
 * NULL. */
void resolve_begin(struct resident *r, struct request *rq);
