/* tos resolve --force: see forced.c. */
#pragma once

#include "kernel/kernel.h"

struct lines;

struct slice forced_act(struct lines *trail, const struct incarnation *e);
/* Into the arguments of a report: by whose act its incarnation was raised. */
void forced_evidence(struct resident *r, struct tos_value *args);
/* At the home: the incarnation was raised by an act that this home believes; it is the record's from
 * now on. */
bool forced_take(
	struct kernel *k, struct home_record *h, struct slice act, const struct incarnation *e);
/* At the holder: takes rq. */
void forced_begin(struct resident *r, struct request *rq, const char *by,
	const struct tos_value *act, struct slice act_cose);

/* home.c */
void home_forced(struct kernel *k, struct home_record *h, const char *kernel,
	const struct incarnation *e);
/* depart.c: as if the home had granted e. Takes rq. */
void resolve_forced(struct resident *r, struct request *rq, const struct incarnation *e);
/* resident.c: its incarnation is another one: journaled */
void resident_forced(struct resident *r);
