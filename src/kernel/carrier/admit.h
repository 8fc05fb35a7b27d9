/* What may be launched or arrive, and what extensions say to that (admit.c). */
#pragma once

#include "kernel/kernel.h"

struct code {
	uint8_t digest[DIGEST_BYTES];
	struct blob bundle;
	struct cert_info author;
	struct manifest manifest;
	int64_t used_ms;
	/* when it was found good, and by which revocation list */
	int64_t checked_ms;
	uint64_t checked_revocation;
	int64_t kept_until_ms;    /* wall: when the store's row of it expires; 0 not known */
	uint64_t kept_failures;   /* the store's failures when that row was written */
	int64_t counted_until_ms; /* at the start: until when its row counts for somebody */
};
/* The verified code, from memory or the store; NULL and em if it is not here. */
struct code *code_find(struct kernel *k, const uint8_t digest[DIGEST_BYTES], struct errmsg *em);
/* cached in k->codes */
int code_verify(struct kernel *k, struct slice bundle, struct code **out, struct errmsg *em);
int ticket_verify(struct kernel *k, struct slice cose, struct ticket *out,
	uint8_t id[DIGEST_BYTES], struct cert_info *owner, struct errmsg *em);
/* Of one that was verified when it came. */
int ticket_stored(struct slice cose, struct ticket *out, uint8_t id[DIGEST_BYTES],
	const struct cert_info **owner, struct errmsg *em);
/* The same in two steps, of which the first touches nothing else: any thread may take it. */
struct ticket_look {
	struct cose cose; /* borrows */
	uint8_t id[DIGEST_BYTES];
};
int ticket_look(struct slice cose, struct ticket_look *out, struct errmsg *em);
int ticket_seen(const struct ticket_look *look, struct ticket *out, uint8_t id[DIGEST_BYTES],
	const struct cert_info **owner, struct errmsg *em);
/* Limits granted here; ERR_LIMIT names the first that the carrier cannot do without. */
int admit_limits(struct kernel *k, const int64_t asked[LIMIT_COUNT],
	const int64_t minimum[LIMIT_COUNT], int64_t out[LIMIT_COUNT], struct errmsg *em);
/* Once the code is known: is its author's let in? `action` launch or arrive. */
int admit_author(struct kernel *k, const struct cert_info *owner,
	const struct cert_info *author, const char *action, struct errmsg *em);
int admit_check(struct kernel *k, const struct cert_info *owner, const char *action,
	bool counts, struct errmsg *em);
/* Bits of enum role; author NULL: not known. */
unsigned carrier_roles(const struct cert_info *owner, const struct cert_info *author);

/* Its owner's or author's certificate was revoked: it is killed, unless it is just ending by itself. False: it
 * was not. */
bool resident_revoked(struct resident *r);
/* There is a new revocation list: the same for all but those that depart. */
void residents_revoked(struct kernel *k);

/* Hooks: call each ON_ARRIVAL or ON_DEPARTURE inbox in turn; done(rc, text) later. Modifies r. */
typedef void hooks_done_fn(struct kernel *k, void *arg, int rc, const char *text);
void hooks_run(struct kernel *k, struct resident *r, uint32_t flag, const char *dest,
	const char *from, hooks_done_fn *done, void *arg);
