/* Clients that have shown whose they are: by the signature of their principal, never by a kernel's word. */
#pragma once

#include "kernel/kernel.h"

struct introduced {
	struct origin origin; /* first: a peer keeps it among those for whom it was vouched */
	struct cert_info who;
	int64_t until_ms;         /* wall clock */
	struct blob introduction; /* of clients of this kernel: what is shown to others */
	struct list node;         /* of a peer's: who was not heard of for longest is first */
};

void introduce_verb(struct kernel *k, struct request *rq); /* takes rq */
/* The connection is gone. */
void introduced_drop(struct kernel *k, const char *client);
/* Of a client here: NULL if it has not, or no longer. Lent until the next turn. */
const struct introduced *introduced_find(struct kernel *k, const char *client);
/* A peer shows the introduction of a client of its own: false if it is none. */
bool introduced_vouched(struct kernel *k, struct peer *p, struct slice introduction);
/* It has posted. */
void introduced_heard(struct peer *p, const struct origin *o);
/* It was introduced, and had to make room: nobody knows whose it is, and it is not nobody's. */
bool introduced_forgotten(const struct peer *p, struct slice client);
/* All of a peer's: its link is gone, or it runs anew. */
void introduced_clear(struct peer *p);
/* What a peer vouched for, and that still holds: carriers, and introduced clients. NULL: nobody. */
const struct origin *introduced_holds(const struct kernel *k, const struct origin *o);
/* There is a new list: those whose certificate it names are nobody's from here on. */
void introduced_revoke(struct kernel *k);
