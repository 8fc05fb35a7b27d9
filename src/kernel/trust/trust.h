/* Who is who, and who may: enrolment, revocation, groups, peers' audit chains. */
#pragma once

#include "kernel/kernel.h"

/* ---- registrar.c, and what is known of the Directory */
extern const struct verb registrar_verbs[];
int registrar_init(struct kernel *k, struct errmsg *em);
void registrar_enroll_act(
	struct kernel *k, struct request *rq, const char *name, const struct tos_value *args);
void registrar_remove_act(struct kernel *k, struct request *rq, const char *name);
void directory_register(struct kernel *k);
void directory_learn(struct kernel *k, const char *name, const struct tos_value *addresses);
/* By the list known here. */
bool cert_revoked(const struct kernel *k, const struct cert_info *who);
/* a higher number is kept, journaled, acted on */
int revocation_accept(struct kernel *k, struct slice cose, struct errmsg *em);

/* ---- explain.c */
void can_verb(struct kernel *k, struct request *rq);

/* ---- groups.c: host groups and labels */
void groups_act(
	struct kernel *k, struct request *rq, const char *by, const struct tos_value *args);
void groups_verb(struct kernel *k, struct request *rq);
void groups_give(struct kernel *k, struct request *rq);

/* ---- certs.c: certificates of owners and authors, counted. *at is cert_nobody or was kept before. */
extern const struct cert_info cert_nobody;
void cert_keep(const struct cert_info **at, const struct cert_info *info);
void cert_leave(const struct cert_info **at); /* nobody's then */
/* What signatures are checked against now: the root and the revocation list, both borrowed. */
void kernel_trust(const struct kernel *k, struct trust *out);
/* Changes with the revocation list: what was found good under another number is not any more. */
uint64_t kernel_trust_number(const struct kernel *k);

/* ---- rights.c: the restrictions in a verified certificate; NULL: it has none */
const struct rights *rights_of(struct kernel *k, const struct cert_info *who);

/* ---- fresh.c: how old the revocation list may be */
void fresh_load(struct kernel *k);
int64_t fresh_age_ms(const struct kernel *k);
/* Carriers may be admitted; else em says why not (ERR_EXPIRED). */
bool fresh_enough(const struct kernel *k, struct errmsg *em);
/* The list is too old but is just being asked about: fn(k, rq) comes when that has come out well,
 * a failure else. False: rq is still the caller's, and there is nothing to wait for. */
bool fresh_wait(struct kernel *k, struct request *rq, verb_fn *fn);
void fresh_answer(struct kernel *k, struct request *rq); /* REVOCATION; takes rq */
void fresh_ask(struct kernel *k, const char *kernel);
void fresh_link_up(struct kernel *k, const char *peer, uint64_t number);
void fresh_tick(struct kernel *k, int64_t now_ms);

/* ---- witness.c: audit chains of peers */
void witness_hello(struct kernel *k, struct hello *h);
void witness_link_up(struct kernel *k, const char *peer, const struct hello *h);
void witness_tick(struct kernel *k, int64_t now_ms);
void witness_answer(struct kernel *k, struct request *rq); /* AUDIT_AT; takes rq */

/* ---- renew.c: this kernel's certificate before it runs out */
void renew_tick(struct kernel *k, int64_t now_ms);
