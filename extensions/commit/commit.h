/*
 * What the files of Commit share. coordinator.h's files have the transactions that were begun here,
 * participant.h's the part that carriers here have in transactions, here or elsewhere; each journals
 * by itself. commit.c is the inbox and what both need. doc/protocol.md, "Commit".
 */
#pragma once

#include <tos/extension.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TX_BYTES      96  /* KERNEL/20 hex digits */
#define NAME_BYTES    129 /* of a carrier, as everywhere */
#define KERNEL_BYTES  64
#define OWNER_BYTES   130
#define TEXT_BYTES    256
#define PLAN_MAX      (16u << 10) /* bytes of what a participant says it would do */
#define DATA_MAX      (64u << 10) /* ... of what a coordinator says to all */
#define MEMBERS_MAX   1024
#define AGAIN_MS      200
#define AGAIN_MOST_MS 5000
#define CALL_MS       5000 /* of one try to reach another Commit, or a carrier */
#define TICK_MS       100
#define TICK_SLOW_MS  1000 /* while nothing is due sooner */

/* The incarnation of a carrier. */
struct era {
	int64_t count;
	uint8_t nonce[8];
};

/* Who asks. */
struct asker {
	const struct tos_message *m;
	const struct tos_value *args; /* map, or NULL */
	const char *owner;            /* principal */
	bool kernel, carrier, client; /* else an extension */
	bool here;                    /* of this kernel */
	bool all;                     /* may see everybody's, not only its owner's */
	char from[KERNEL_BYTES];      /* another kernel's Commit; "" it is none */
	struct era e;                 /* of a carrier here */
	int64_t n, seq;
};

struct commit;
struct tx;
struct part;

/* ---- commit.c */
struct commit {
	struct tos_ext *x;
	struct tx *txs;
	struct part *parts;
	struct entry *entries;
	size_t n_txs, n_parts;
	bool loaded;
	struct tos_inbox *inbox; /* woken before that */
	struct tos_value *after; /* the last key that was loaded; NULL: none */
	int64_t restored_ms;     /* wall; what the store held before may be missing */
	struct tos_timer *timer; /* of the tick; NULL: nothing is due */
	bool slow;
	int64_t in_doubt; /* as the property says */
};
int64_t wall_ms(void);
bool copy(char *out, size_t cap, const char *text); /* false: too long */
int era_compare(const struct era *a, const struct era *b);
struct tos_value *era_value(const struct era *e);
void era_read(const struct tos_value *v, struct era *out);
struct tos_value *one(struct tos_value *v); /* an array with it; takes v */
void ok(struct tos_ext *x, uint64_t token, struct tos_value *map); /* token 0: nobody asked */
void no(struct tos_ext *x, uint64_t token, int rc, const char *text);
uint64_t take(uint64_t *token); /* and leave 0 there */
size_t value_bytes(const struct tos_value *v);
/* The kernel part of a transaction's name. */
void coordinator_of(const char *tx, char out[KERNEL_BYTES]);
/* What another kernel says is left, within what a transaction may take. */
int64_t left_of(const struct tos_value *args);
/* A call to the Commit of that kernel; takes args. */
int ask(struct tos_ext *x, const char *kernel, const char *verb, struct tos_value *args,
	uint32_t timeout_ms, tos_answer_fn *done, void *arg);
/* Takes value; NULL drops the row. */
int journal(struct tos_ext *x, const char *key, struct tos_value *value, int64_t expires,
	tos_answer_fn *done, void *arg);
/* The same, and nobody waits for it. */
void journal_drop(struct tos_ext *x, const char *key);
/* Nothing was written, for sure. */
bool not_written(int rc);
int64_t setting(struct tos_ext *x, const char *path);
int64_t keep_until(struct tos_ext *x);
void tick_soon(struct commit *c);
void logf_(struct tos_ext *x, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- coordinator.c: verbs of carriers, of other Commits, and the rest */
void tx_begin(struct commit *c, const struct asker *a);
void tx_prepare(struct commit *c, const struct asker *a);
void tx_commit(struct commit *c, const struct asker *a);
void tx_abort(struct commit *c, const struct asker *a);
void tx_status(struct commit *c, const struct asker *a);
void tx_enter(struct commit *c, const struct asker *a);
void tx_outcome(struct commit *c, const struct asker *a);
void tx_ended(struct commit *c, const struct asker *a);
bool tx_resolve(struct commit *c, const char *id, bool commit, const char *by);
void tx_list(struct commit *c, const struct asker *a, struct tos_value *rows);
void tx_load(struct commit *c, const char *id, const struct tos_value *row);
/* Something is left to be done; *soon is set if that is not only to ask again much later. */
bool tx_tick(struct commit *c, int64_t now, bool *soon);
void tx_free_all(struct commit *c);

/* ---- the participant: participant.c, vote.c, decision.c, acting.c */
void part_join(struct commit *c, const struct asker *a);
void part_vote(struct commit *c, const struct asker *a);
void part_done(struct commit *c, const struct asker *a);
void part_poll(struct commit *c, const struct asker *a);
void part_decide(struct commit *c, const struct asker *a);
bool part_resolve(struct commit *c, const char *id, bool commit, const char *by);
void part_list(struct commit *c, const struct asker *a, struct tos_value *rows);
void part_load(struct commit *c, const struct tos_value *row);
bool part_tick(struct commit *c, int64_t now, bool *soon);
int64_t part_doubts(const struct commit *c);
void part_free_all(struct commit *c);
