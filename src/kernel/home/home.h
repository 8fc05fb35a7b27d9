/* The home: what this kernel answers for of the carriers launched here. */
#pragma once

#include "kernel/kernel.h"

struct home_record {
	struct kernel *k;
	char name[NAME_BYTES_MAX + 1];
	uint8_t id[DIGEST_BYTES];
	char owner[CERT_NAME_MAX + 1];
	enum shell_state state;
	char kernel[64]; /* where it is, as far as known */
	char from[64];   /* who handed it there and may have kept its copy; "" nobody */
	struct incarnation e;
	uint64_t n;
	uint64_t
		came; /* n when it came to that kernel: what leaves it has this number or more */
	/* kernels that had it, the latest over the oldest: they may tell watchers of it */
	char *places[8];
	size_t n_places;
	bool in_doubt;
	char wanted[16]; /* "", "killed", "suspended", "running" */
	bool command_due, commanding;
	/* an incarnation that is being journaled: nobody hears of it before it is durable */
	bool raising, save_due;
	struct incarnation next_e;
	/* its end, while that is being journaled: each row written meanwhile says so, too */
	bool closing;
	enum shell_state end_state;
	struct tos_value *end_outcome;
	int64_t end_ms;
	bool place_due; /* where it is, which may be forgotten */
	int64_t command_at_ms, command_pause_ms, save_at_ms, place_at_ms;
	/* its place said that it has none: when first, and when it is asked again */
	int64_t denied_ms, holds_at_ms;
	bool denied; /* for good */
	int64_t launched_ms, since_ms, ended_ms, expires_ms;
	bool stale; /* from a store that was restored: others are asked before it counts */
	struct blob ticket_cose;
	struct tos_value *outcome; /* {briefcase, trail, fault, log}; NULL until ended */
	struct tos_value *fault;
	/* families.c. Of a clone: where it was made, and its birth record's digest. Of each: its
	 * budgets, what its clones got of them, how many have registered, and what is wanted of all
	 * that come of it */
	char born[64];
	uint8_t birth[DIGEST_BYTES];
	int64_t budget[LIMIT_COUNT], gave[LIMIT_COUNT];
	uint64_t n_registered;
	char family_wanted[16];
	struct list waiters; /* struct outcome_waiter */
	struct list ticked; /* in homes_open, or over: in homes_over; while it is in k->homes */
	bool over;
};
extern const struct verb home_verbs[];
struct home_record *home_find(struct kernel *k, const char *name);
/* loading.c: they are read while the kernel serves already. */
void homes_begin(struct kernel *k);
/* Before a walk through k->homes: all are there then, but for what the store could not give just now, which the
 * tick asks for again. */
void homes_all(struct kernel *k);
/* Not one that ended long ago. */
struct home_record *home_known(struct kernel *k, const char *name);
void homes_tick(struct kernel *k, int64_t now_ms);
struct home_record *home_new(struct kernel *k, const char *name);
/* Into k->homes: the table owns it. */
void home_add(struct kernel *k, struct home_record *h);
/* Something of it is due: the tick looks at it again, though it ended long ago. */
void home_wake(struct home_record *h);
/* adopt.c: the record of a carrier that comes here by that departure and was launched here, which this
 * store has forgotten since it was put back from a backup; NULL if that is not so. Its ticket and chain
 * have been verified. */
struct home_record *home_adopt(
	struct kernel *k, const struct resident *r, const struct hop *last);
void home_put(struct store_txn *t, const struct home_record *h);
void home_free(struct home_record *h);
/* takes outcome; in memory */
void home_outcome(struct kernel *k, struct home_record *h, enum shell_state state,
	struct tos_value *outcome);
/* A raise or an end is being journaled: until that has come out nothing else is decided of the
 * carrier, and whoever reports or asks is to do so again. */
bool home_busy(const struct home_record *h);
/* It ends when a transaction with its row is durable: from here on home_put() writes the end;
 * takes outcome. home_end() when that has come out. */
void home_close(struct home_record *h, enum shell_state state, struct tos_value *outcome);
void home_end(struct kernel *k, struct home_record *h, int rc);
void home_link_up(struct kernel *k, const char *peer);
struct tos_value *home_row(const struct home_record *h);
struct tos_value *outcome_of(struct resident *r); /* {briefcase, trail, fault, log, clones} */
/* Its row is written with the next tick; whoever must know that it is durable commits by himself. */
void home_save_due(struct home_record *h);
/* Its outcome, or its fault, is known. */
bool home_outcome_known(const struct home_record *h);
void home_wait(struct home_record *h, struct request *rq, uint32_t wait_ms); /* takes rq */
void home_waiters_drop(struct kernel *k, const char *client);                /* it is gone */
int home_want(struct kernel *k, struct home_record *h, const char *wanted, struct request *rq);
void home_declared(struct kernel *k, const char *dead, struct tos_value *names);
/* What other kernels know of it, where this home's store was restored. */
void home_told(struct kernel *k, struct home_record *h, const char *where,
	const struct incarnation *e, uint64_t n);
/* No copy is left: its outcome. */
void home_lost(struct kernel *k, struct home_record *h, const char *text);
bool home_is_declared(struct kernel *k, const char *kernel);
/* It is at that kernel now, which it came to with this n. */
void home_place(struct home_record *h, const char *kernel, uint64_t came);
