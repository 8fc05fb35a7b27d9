/*
 * What the files of the coordinator share: a transaction that was begun at this kernel, and its members.
 * coordinator.c has the verbs of the carrier that began it, and time; rounds.c the questions and the
 * decision; entry.c who may join; recovery.c the journal, and what is known after a crash.
 */
#pragma once

#include "commit.h"

#define AGAIN_LONG_MS 60000
#define TELL_MS       60000 /* how long an abort is told to whoever promised nothing */

#define TX_STATES(X)                                                                           \
	X(T_BEGINNING, "beginning") /* being journaled */                                      \
	X(T_OPEN, "open")           /* carriers may join */                                    \
	X(T_ASKING, "preparing")    /* votes are collected */                                  \
	X(T_READY, "ready")         /* all said yes */                                         \
	X(T_DECIDING, "deciding")   /* a commit is being journaled */                          \
	X(T_COMMITTED, "committed")                                                            \
	X(T_ABORTED, "aborted")                                                                \
	X(T_DOUBT, "in-doubt") /* from a restored store: what was decided since is not known */
enum tx_state {
#define X(sym, word) sym,
	TX_STATES(X)
#undef X
};

enum vote { V_NONE, V_YES, V_NO };

struct member {
	struct member *next;
	struct tx *t;
	char carrier[NAME_BYTES], kernel[KERNEL_BYTES], owner[OWNER_BYTES];
	struct era e;
	enum vote vote;
	bool asking; /* a POLL or DECIDE is under way */
	bool told;   /* its kernel knows the decision */
	bool kept;   /* ... and has it in its journal */
	bool lost;   /* ... or knows nothing of its yes any more */
	bool done;
	int64_t again_at;
	uint32_t pause_ms;
	char text[TEXT_BYTES];
	struct tos_value *plan, *result;
};

struct tx {
	struct tx *next;
	struct commit *c;
	char id[TX_BYTES], carrier[NAME_BYTES], owner[OWNER_BYTES], name[TEXT_BYTES];
	struct era e;
	int64_t n, seq;
	uint8_t *args; /* of BEGIN, encoded */
	size_t n_args;
	struct tos_value *admit, *data;
	enum tx_state state;
	int phases;
	bool dry, loaded, settled;
	bool commit_wanted,
		wait_done; /* COMMIT was asked for; it waits for what the carriers do */
	bool poll_wanted;  /* votes, as soon as enough have joined */
	int64_t expect, deadline, begun_wall, changed;
	struct member *members;
	size_t n_members;
	uint64_t begin_token, prepare_token, commit_token;
	int64_t answer_by;
	bool writing;
	int64_t write_at;
	unsigned busy;
	char text[TEXT_BYTES], by[OWNER_BYTES];
};

/* Somebody who wants to join, or to know, while another is being asked about it. */
struct entry {
	struct entry *next;
	struct commit *c;
	char tx[TX_BYTES], carrier[NAME_BYTES], kernel[KERNEL_BYTES], home[KERNEL_BYTES];
	struct era e;
	uint64_t token;
	int64_t until;
};

/* ---- coordinator.c */
const char *tx_word(enum tx_state s);
struct tx *tx_find(struct commit *c, const char *id);
struct member *member_find(const struct tx *t, const char *carrier);
struct tx *tx_new(struct commit *c); /* NULL without memory */
/* NULL: no memory, or a name is too long. */
struct member *member_new(struct tx *t, const char *carrier, const char *kernel);
void tx_turn(struct tx *t, enum tx_state s);
struct tos_value *tx_map(const struct tx *t, enum tx_state as);
void answer_prepare(struct tx *t);
void answer_commit(struct tx *t);

/* ---- rounds.c */
void abort_tx(struct tx *t, const char *why); /* why NULL: as t->text says */
void commit_tx(struct tx *t);
void commit_write(struct tx *t);
/* Answers whoever waits for as much as is known by now. */
void settle(struct tx *t);
/* Asks and tells whom it is time to. */
void members_step(struct tx *t, int64_t now);
/* Begins with the votes, if enough have joined for what was asked. */
void go_on(struct tx *t);

/* ---- entry.c: somebody who wants to join, or to know, while another is being asked about it */
struct entry *entry_new(struct commit *c, const struct asker *a); /* NULL: malformed */
void entry_free(struct entry *e);

/* ---- recovery.c */
int tx_put(struct tx *t, enum tx_state as, int64_t expires, tos_answer_fn *done);
/* The same, and nobody waits for it. */
void tx_note(struct tx *t, enum tx_state as);
int64_t begun_of(const char *id); /* wall time, as the name has it */
