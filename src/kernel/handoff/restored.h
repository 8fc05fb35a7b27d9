/* This store or a peer's is older than what was seen of it; clones of a kernel (restored.c). */
#pragma once

#include "kernel/kernel.h"

int restored_load(struct kernel *k, struct errmsg *em);
/* Once residents and homes are in memory. */
void restored_loaded(struct kernel *k);
/* From now on nothing of what the store had runs until others have been asked. why: for people. */
void restored_begin(struct kernel *k, const char *why, uint64_t seen_seq, uint64_t seen_boot);
bool restored_pending(const struct kernel *k);
/* Of a carrier loaded from the store: it waits for others' word. */
bool restored_holds_back(const struct kernel *k);
/* It does not start yet: nobody has said what became of it since this store was written. */
bool restored_waits(const struct resident *r);
void restored_confirmed(struct resident *r); /* its home has answered */
void restored_hello(struct kernel *k, const char *peer, struct hello *h);
void restored_link_up(struct kernel *k, const char *peer, const struct hello *h);
/* A peer refused this kernel: another one of its name and key is linked there. */
void restored_clone(struct kernel *k, const char *peer, const char *why);
/* One of two kernels of one name was refused here. */
void restored_clone_refused(
	struct kernel *k, const char *name, const char *address, const char *linked);
/* How far this store is, into what is said to a peer; and what a peer said of its own. */
void restored_stamp(struct kernel *k, struct tos_value *m);
void restored_see(struct kernel *k, const char *peer, const struct tos_value *m);
void restored_tick(struct kernel *k, int64_t now_ms);
/* A record that was signed before this store was restored: 0 it may be taken, ERR_SUPERSEDED its
 * carrier has moved on since, ERR_AGAIN its home is being asked. */
int restored_vet(struct kernel *k, const struct hop *hop, const char *home, const char *name);
/* An offer of departure n was granted. */
void restored_offered(struct kernel *k, const uint8_t id[DIGEST_BYTES], uint64_t n);
void restored_release(struct resident *r);
void known_verb(struct kernel *k, struct request *rq);
struct tos_value *restored_status(const struct kernel *k); /* NULL: nothing to say */
