/*
 * What the files of the participant share: the part that a carrier here has in a transaction, which may
 * be of another kernel. participant.c has who joins, the journal, and time; vote.c the vote; decision.c
 * how it ends; acting.c what the carrier is told, and what it has done.
 */
#pragma once

#include "commit.h"

#define FORGET_MS 60000 /* what nobody promised anything for */

/* X(symbol, word) */
#define PART_STATES(X)                                                                         \
	X(P_ENTERING, "joining") /* the coordinator is being asked */                          \
	X(P_JOINED, "joined")                                                                  \
	X(P_ASKED, "asked")       /* the carrier is to vote */                                 \
	X(P_VOTING, "voting")     /* its yes is being journaled */                             \
	X(P_PREPARED, "prepared") /* it said yes: only the coordinator knows how it ends */    \
	X(P_DECIDING, "deciding") /* the decision is being journaled */                        \
	X(P_COMMITTED, "committed")                                                            \
	X(P_ABORTED, "aborted")
enum part_state {
#define X(sym, word) sym,
	PART_STATES(X)
#undef X
};

struct part {
	struct part *next;
	struct commit *c;
	char tx[TX_BYTES], coordinator[KERNEL_BYTES];
	char carrier[NAME_BYTES], owner[OWNER_BYTES], inbox[64];
	struct era e, asked; /* who was asked for a vote */
	enum part_state state;
	bool one_phase, dry;
	bool durable;         /* there is a row of it */
	bool kept;            /* ... that has the decision; else only its coordinator has it */
	bool hurry;           /* somebody there waits for what the carrier does */
	bool loaded;          /* ... from before a restart */
	bool refused;         /* it voted no */
	bool done;            /* the carrier has acted on the decision */
	bool commit;          /* the decision */
	bool mixed;           /* an operator's word was not the coordinator's */
	char by[OWNER_BYTES]; /* who decided instead of the coordinator */
	char text[TEXT_BYTES];
	struct tos_value *data, *plan, *result;
	int64_t deadline, since_wall, changed;
	uint64_t join_token, poll_token, vote_token, decide_token, done_token;
	unsigned busy; /* calls under way that point here */
	bool telling, asking, writing, ending;
	int64_t tell_at, ask_at, write_at, end_at;
	uint32_t pause_ms, end_tries;
};

/* ---- participant.c */
struct part *part_find(struct commit *c, const char *tx, const char *carrier); /* NULL */
const char *part_word(enum part_state s);
bool part_final(const struct part *p);
void part_turn(struct part *p, enum part_state s);
/* What is said of it to those who may know. */
struct tos_value *part_map(const struct part *p);
/* Lower incarnations have no say any more: false, and a's call is answered so. */
bool part_era_ok(struct part *p, const struct asker *a);
/* Journal it as being in that state; 0: done comes with p, which is busy until then. expires: wall
 * time, 0 never. */
int part_put(struct part *p, enum part_state as, int64_t expires, tos_answer_fn *done);
/* The next pause of whoever is asked again. */
void part_longer(struct part *p, uint32_t first_ms);
/* What it is time for, of all the files. */
void part_step(struct part *p, int64_t now);

/* ---- vote.c */
/* It is over before anything was promised, or by the coordinator's word. why NULL: as p->text says. */
void part_abort(struct part *p, const char *why);
void part_vote_write(struct part *p);
/* The carrier has answered PREPARE; v: its answer. */
void part_vote_answered(struct part *p, const struct tos_value *v);

/* ---- decision.c */
void part_decision_write(struct part *p);
/* Ask the coordinator. */
void part_outcome_ask(struct part *p);

/* ---- acting.c */
void part_tell(struct part *p);
/* Tell the coordinator that the carrier has acted: it likes to know, and does not depend on it. */
void part_end_say(struct part *p);
