/*
 * The part that carriers here have in transactions. Promises that the coordinator may rely on are in
 * the journal before they are said: a yes before it is answered, a decision before it is said to be
 * kept. Of a decision that its coordinator keeps the carrier is told at once, and the journal has it
 * when the carrier has acted: after a crash in between the coordinator is asked again. The carrier is
 * told, again after each crash, until it says DONE.
 */
#include "commit.h"

#define FORGET_MS   60000 /* what nobody promised anything for */
#define DOUBT_GRACE 500
#define LAZY_MS     10 /* a record that nobody waits for shares the disk with others */
#define KEEP_MS     500 /* a carrier that has not acted by then: the decision is journaled alone */

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

static const char *word_of(enum part_state s)
{
	static const char *const words[] = {
#define X(sym, word) [sym] = (word),
		PART_STATES(X)
#undef X
	};
	return words[s];
}

static bool final(const struct part *p)
{
	return p->state == P_COMMITTED || p->state == P_ABORTED;
}

static struct part *part_find(struct commit *c, const char *tx, const char *carrier)
{
	struct part *p = c->parts;

	while (p && (strcmp(p->tx, tx) != 0 || strcmp(p->carrier, carrier) != 0))
		p = p->next;
	return p;
}

static struct part *part_new(struct commit *c, const char *tx, const char *carrier)
{
	struct part *p = calloc(1, sizeof(*p));

	if (!p || !copy(p->tx, sizeof(p->tx), tx) ||
		!copy(p->carrier, sizeof(p->carrier), carrier)) {
		free(p);
		return NULL;
	}
	p->c = c;
	coordinator_of(tx, p->coordinator);
	strcpy(p->inbox, "commit");
	p->since_wall = wall_ms();
	p->next = c->parts;
	c->parts = p;
	c->n_parts++;
	return p;
}

static void part_free(struct part *p)
{
	tos_value_free(p->data);
	tos_value_free(p->plan);
	tos_value_free(p->result);
	free(p);
}

/* It never took part. */
static void part_drop(struct part *p)
{
	struct part **at = &p->c->parts;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->c->n_parts--;
	part_free(p);
}

void part_free_all(struct commit *c)
{
	while (c->parts) {
		struct part *p = c->parts;

		c->parts = p->next;
		part_free(p);
	}
}

static void turn(struct part *p, enum part_state s)
{
	p->state = s;
	p->changed = tos_now_ms(p->c->x);
	p->tell_at = 0;
	p->pause_ms = 0;
	tick_soon(p->c);
}

/* ---- the journal */

static void key_of(const struct part *p, char *out, size_t cap)
{
	snprintf(out, cap, "p/%s %s", p->tx, p->carrier);
}

static struct tos_value *row_of(const struct part *p, enum part_state as)
{
	struct tos_value *v = tos_map();

	tos_set(v, "tx", tos_text(p->tx));
	tos_set(v, "carrier", tos_text(p->carrier));
	tos_set(v, "owner", tos_text(p->owner));
	tos_set(v, "inbox", tos_text(p->inbox));
	tos_set(v, "e", era_value(&p->e));
	tos_set(v, "state", tos_text(word_of(as)));
	tos_set(v, "since", tos_int(p->since_wall));
	if (p->plan)
		tos_set(v, "plan", tos_value_copy(p->plan));
	if (p->one_phase)
		tos_set(v, "one_phase", tos_bool(true));
	if (p->done)
		tos_set(v, "done", tos_bool(true));
	if (p->by[0])
		tos_set(v, "by", tos_text(p->by));
	if (p->mixed)
		tos_set(v, "mixed", tos_bool(true));
	if (p->text[0])
		tos_set(v, "text", tos_text(p->text));
	return v;
}

static int row_put(struct part *p, enum part_state as, int64_t expires, tos_answer_fn *done)
{
	char key[TX_BYTES + NAME_BYTES + 8];
	int rc;

	key_of(p, key, sizeof(key));
	rc = journal(p->c->x, key, row_of(p, as), expires, done, p);
	if (rc == 0) {
		p->busy++;
		p->durable = true;
	}
	return rc;
}

void part_load(struct commit *c, const struct tos_value *row)
{
	const char *tx = tos_get_text(row, "tx", ""), *state = tos_get_text(row, "state", "");
	struct part *p = part_new(c, tx, tos_get_text(row, "carrier", ""));

	if (!p)
		return;
	copy(p->owner, sizeof(p->owner), tos_get_text(row, "owner", ""));
	copy(p->inbox, sizeof(p->inbox), tos_get_text(row, "inbox", "commit"));
	copy(p->by, sizeof(p->by), tos_get_text(row, "by", ""));
	copy(p->text, sizeof(p->text), tos_get_text(row, "text", ""));
	era_read(tos_get(row, "e"), &p->e);
	p->since_wall = tos_get_int(row, "since", 0);
	p->plan = tos_value_copy(tos_get(row, "plan"));
	p->one_phase = tos_get_bool(row, "one_phase", false);
	p->done = tos_get_bool(row, "done", false);
	p->mixed = tos_get_bool(row, "mixed", false);
	p->durable = p->loaded = true;
	p->commit = strcmp(state, "committed") == 0;
	p->state = p->commit                       ? P_COMMITTED
		   : strcmp(state, "aborted") == 0 ? P_ABORTED
						   : P_PREPARED;
	p->kept = p->state != P_PREPARED;
	p->changed = p->ask_at = tos_now_ms(c->x);
	if (p->state == P_PREPARED)
		logf_(c->x, 3, "%s of %s is in doubt: %s is asked", p->carrier, p->tx,
			p->coordinator);
}

/* ---- answers */

static struct tos_value *state_map(const struct part *p)
{
	struct tos_value *v = tos_map();

	tos_set(v, "tx", tos_text(p->tx));
	tos_set(v, "state", tos_text(word_of(p->state)));
	tos_set(v, "phases", tos_int(p->one_phase ? 1 : 2));
	if (p->plan)
		tos_set(v, "plan", tos_value_copy(p->plan));
	if (p->done)
		tos_set(v, "done", tos_bool(true));
	if (p->text[0])
		tos_set(v, "text", tos_text(p->text));
	return v;
}

static void poll_answer(struct part *p, bool yes)
{
	struct tos_value *v = tos_map();

	tos_set(v, "vote", tos_bool(yes));
	if (p->plan)
		tos_set(v, "plan", tos_value_copy(p->plan));
	if (p->text[0])
		tos_set(v, "text", tos_text(p->text));
	ok(p->c->x, take(&p->poll_token), v);
}

/* It is over before anything was promised, or by the coordinator's word. */
static void abort_part(struct part *p, const char *why)
{
	if (!p->text[0] && why)
		snprintf(p->text, sizeof(p->text), "%s", why);
	p->commit = false;
	turn(p, P_ABORTED);
	no(p->c->x, take(&p->vote_token), TOS_ERR_ABORTED, p->text);
	poll_answer(p, false);
}

static bool part_evict(struct commit *c);
static void part_step(struct part *p, int64_t now);

/* ---- joining */

static void on_entered(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct part *p = arg;
	const struct tos_value *v = tos_at(elements, 0);
	const char *state = tos_get_text(v, "state", "");

	(void)folder;
	p->busy--;
	if (rc < 0 && p->busy)
		return; /* it has asked again since */
	if (p->state == P_ENTERING && rc < 0) {
		no(x, take(&p->join_token), rc, text);
		part_drop(p);
		return;
	}
	if (rc < 0) {
		no(x, take(&p->join_token), rc, text);
		return;
	}
	p->one_phase = tos_get_int(v, "phases", 2) == 1;
	if (p->state == P_ENTERING || p->state == P_JOINED) {
		p->deadline = tos_now_ms(x) + left_of(v);
		if (strcmp(state, "aborted") == 0)
			abort_part(p, tos_get_text(v, "text", "it was aborted"));
		else
			turn(p, P_JOINED);
	}
	ok(x, take(&p->join_token), state_map(p));
}

static int enter(struct part *p)
{
	struct tos_value *args = tos_map();
	int rc;

	tos_set(args, "tx", tos_text(p->tx));
	tos_set(args, "carrier", tos_text(p->carrier));
	tos_set(args, "e", era_value(&p->e));
	rc = ask(p->c->x, p->coordinator, "ENTER", args, 2 * CALL_MS, on_entered, p);
	if (rc == 0)
		p->busy++;
	return rc;
}

static int part_make(struct commit *c, const struct asker *a, const char *tx, struct part **out)
{
	char coordinator[KERNEL_BYTES];

	coordinator_of(tx, coordinator);
	if (!coordinator[0] || strlen(tx) >= TX_BYTES)
		return TOS_ERR_MALFORMED;
	if ((int64_t)c->n_parts >= setting(c->x, "most/parts") && !part_evict(c))
		return TOS_ERR_LIMIT;
	*out = part_new(c, tx, a->m->sender);
	if (!*out)
		return TOS_ERR_NOMEM;
	copy((*out)->owner, sizeof((*out)->owner), a->owner);
	(*out)->e = a->e;
	return 0;
}

/* Lower incarnations have no say any more. */
static bool era_ok(struct part *p, const struct asker *a)
{
	int order = era_compare(&a->e, &p->e);

	if (order < 0) {
		no(p->c->x, a->m->token, TOS_ERR_SUPERSEDED,
			"a higher incarnation of this carrier takes part");
		return false;
	}
	p->e = a->e;
	return true;
}

void part_join(struct commit *c, const struct asker *a)
{
	const char *tx = tos_get_text(a->args, "tx", ""),
		   *inbox = tos_get_text(a->args, "inbox", "commit");
	struct part *p = part_find(c, tx, a->m->sender);
	bool known = p != NULL;
	int rc = 0;

	if (!*inbox || strlen(inbox) >= sizeof(p->inbox)) {
		no(c->x, a->m->token, TOS_ERR_MALFORMED, "JOIN wants {tx, [inbox]}");
		return;
	}
	if (!p)
		rc = part_make(c, a, tx, &p);
	if (rc < 0) {
		no(c->x, a->m->token, rc,
			rc == TOS_ERR_MALFORMED
				? "JOIN wants {tx, [inbox]}: tx is what BEGIN gave"
				: "this kernel takes part in too much already");
		return;
	}
	if (known && !era_ok(p, a))
		return;
	strcpy(p->inbox, inbox);
	/* Whoever has begun again hears at once what it missed. */
	p->tell_at = 0;
	p->telling = false;
	if (known && p->state != P_ENTERING && p->state != P_JOINED && p->state != P_ASKED) {
		ok(c->x, a->m->token, state_map(p));
		tick_soon(c);
		return;
	}
	no(c->x, take(&p->join_token), TOS_ERR_CANCELLED, "it joined again");
	p->join_token = a->m->token;
	if (!known)
		turn(p, P_ENTERING);
	rc = enter(p);
	if (rc < 0) {
		no(c->x, take(&p->join_token), rc, "the coordinator can't be asked");
		if (!known)
			part_drop(p);
	}
}

/* ---- the vote */

void part_poll(struct commit *c, const struct asker *a)
{
	struct part *p = part_find(
		c, tos_get_text(a->args, "tx", ""), tos_get_text(a->args, "carrier", ""));

	if (!p || p->state == P_ENTERING) {
		no(c->x, a->m->token, TOS_ERR_NOT_FOUND, "it has not joined here");
		return;
	}
	if (strcmp(a->from, p->coordinator) != 0) {
		no(c->x, a->m->token, TOS_ERR_DENIED, "only the coordinator asks for votes");
		return;
	}
	no(c->x, take(&p->poll_token), TOS_ERR_CANCELLED, "asked again");
	p->poll_token = a->m->token;
	if (p->state == P_PREPARED || p->state == P_COMMITTED ||
		(p->state == P_DECIDING && p->commit)) {
		poll_answer(p, true);
	} else if (p->state == P_ABORTED || p->state == P_DECIDING) {
		poll_answer(p, false);
	} else if (p->state == P_JOINED || p->state == P_ASKED) {
		p->deadline = tos_now_ms(c->x) + left_of(a->args);
		p->dry = tos_get_bool(a->args, "dry", false);
		tos_value_free(p->data);
		p->data = tos_value_copy(tos_get(a->args, "data"));
		if (p->state == P_JOINED)
			turn(p, P_ASKED);
		part_step(p, tos_now_ms(c->x));
	}
}

static void vote_write(struct part *p);

static void on_voted(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct part *p = arg;

	(void)folder;
	(void)elements;
	p->busy--;
	p->writing = false;
	if (rc < 0 && !not_written(rc)) {
		p->write_at = tos_now_ms(x) + AGAIN_MS; /* it may be written: it has to be */
		return;
	}
	if (rc < 0) {
		char why[TEXT_BYTES];

		snprintf(why, sizeof(why), "its vote could not be journaled: %s", text);
		p->text[0] = '\0';
		p->durable = false;
		abort_part(p, why);
		return;
	}
	turn(p, P_PREPARED);
	p->ask_at = p->deadline + DOUBT_GRACE;
	ok(x, take(&p->vote_token), state_map(p));
	poll_answer(p, true);
}

static void vote_write(struct part *p)
{
	p->writing = row_put(p, P_PREPARED, 0, on_voted) == 0;
	p->write_at = tos_now_ms(p->c->x) + AGAIN_MS;
}

/* A vote when there is no choice left. */
static void vote_late(struct part *p, uint64_t token, bool yes, const struct tos_value *plan)
{
	struct tos_ext *x = p->c->x;
	bool same = yes && (p->plan ? tos_equal(p->plan, plan) : tos_type(plan) == TOS_NIL);

	if ((p->state == P_PREPARED && same) || (p->state == P_ABORTED && p->refused && !yes))
		ok(x, token, state_map(p));
	else if (p->state == P_PREPARED)
		no(x, token, TOS_ERR_DIVERGED, "it has voted yes, for another plan or none");
	else if (p->commit && p->state != P_ABORTED)
		no(x, token, TOS_ERR_COMMITTED, "the transaction was committed");
	else
		no(x, token, TOS_ERR_ABORTED,
			p->text[0] ? p->text : "the transaction was aborted");
}

static void vote_yes(struct part *p, uint64_t token, const struct tos_value *plan)
{
	if (tos_now_ms(p->c->x) >= p->deadline) {
		abort_part(p, "its vote came too late");
		no(p->c->x, token, TOS_ERR_ABORTED, p->text);
		return;
	}
	tos_value_free(p->plan);
	p->plan = plan && tos_type(plan) != TOS_NIL ? tos_value_copy(plan) : NULL;
	p->vote_token = token;
	if (p->dry) { /* it will be aborted: nothing needs to be kept */
		turn(p, P_PREPARED);
		p->ask_at = p->deadline + DOUBT_GRACE;
		ok(p->c->x, take(&p->vote_token), state_map(p));
		poll_answer(p, true);
		return;
	}
	turn(p, P_VOTING);
	vote_write(p);
}

static void vote_no(struct part *p, uint64_t token, const char *text)
{
	snprintf(p->text, sizeof(p->text), "%s", text);
	p->refused = true;
	abort_part(p, NULL);
	ok(p->c->x, token, state_map(p));
}

static bool vote_ok(const struct tos_value *args)
{
	return tos_type(tos_get(args, "yes")) == TOS_BOOL &&
	       value_bytes(tos_get(args, "plan")) <= PLAN_MAX;
}

void part_vote(struct commit *c, const struct asker *a)
{
	struct part *p = part_find(c, tos_get_text(a->args, "tx", ""), a->m->sender);
	const struct tos_value *plan = tos_get(a->args, "plan");
	bool yes = tos_get_bool(a->args, "yes", false);

	if (!p) {
		no(c->x, a->m->token, TOS_ERR_NOT_FOUND,
			"you have not joined that transaction here");
		return;
	}
	if (!era_ok(p, a))
		return;
	if (!vote_ok(a->args)) {
		no(c->x, a->m->token, TOS_ERR_MALFORMED,
			"VOTE wants {tx, yes, [plan], [text]}; a plan is at most 16 KiB");
	} else if (p->state == P_ENTERING || p->state == P_JOINED) {
		no(c->x, a->m->token, TOS_ERR_STATE, "nobody has asked for its vote yet");
	} else if (p->state == P_VOTING) {
		no(c->x, take(&p->vote_token), TOS_ERR_CANCELLED, "it voted again");
		p->vote_token = a->m->token;
	} else if (p->state != P_ASKED) {
		vote_late(p, a->m->token, yes, plan);
	} else if (yes) {
		vote_yes(p, a->m->token, plan);
	} else {
		vote_no(p, a->m->token, tos_get_text(a->args, "text", "it voted no"));
	}
}

/* The carrier has answered PREPARE with its vote, which spares a call. Of a carrier that was retried
 * since it was asked another vote is awaited. */
static void vote_answered(struct part *p, const struct tos_value *v)
{
	if (p->state != P_ASKED || !tos_get(v, "yes") || era_compare(&p->asked, &p->e) != 0)
		return;
	if (!vote_ok(v))
		vote_no(p, 0,
			"its vote was none: {yes, [plan], [text]}, a plan of at most 16 KiB");
	else if (tos_get_bool(v, "yes", false))
		vote_yes(p, 0, tos_get(v, "plan"));
	else
		vote_no(p, 0, tos_get_text(v, "text", "it voted no"));
}

/* ---- the decision */

/* What its coordinator is told: from `later` on it tells again, until the decision is kept here. */
static struct tos_value *decided_map(const struct part *p)
{
	struct tos_value *v = tos_map();

	if (p->durable && !p->kept)
		tos_set(v, "later", tos_bool(true));
	tos_set(v, "done", tos_bool(p->done && !p->done_token));
	if (p->result)
		tos_set(v, "result", tos_value_copy(p->result));
	return v;
}

static void decided(struct part *p)
{
	int64_t now = tos_now_ms(p->c->x);

	turn(p, p->commit ? P_COMMITTED : P_ABORTED);
	p->write_at = now + KEEP_MS;
	tos_count(p->c->x, p->commit ? "parts_committed_total" : "parts_aborted_total", 1);
	ok(p->c->x, take(&p->decide_token), decided_map(p));
	part_step(p, now);
}

static void on_kept(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct part *p = arg;

	(void)folder;
	(void)elements;
	p->busy--;
	p->writing = false;
	if (rc < 0) {
		logf_(x, 3, "the decision of %s for %s can't be journaled: %s", p->tx,
			p->carrier, text);
		p->write_at = tos_now_ms(x) + 1000;
		return;
	}
	p->kept = true;
	if (p->state == P_DECIDING)
		decided(p);
}

static void decision_write(struct part *p)
{
	p->writing = row_put(p, p->commit ? P_COMMITTED : P_ABORTED, 0, on_kept) == 0;
	p->write_at = tos_now_ms(p->c->x) + AGAIN_MS;
}

/* later: its coordinator keeps the decision until it is kept here, and is asked after a crash. */
static void decide(struct part *p, bool commit, const char *why, bool later)
{
	p->commit = commit;
	if (why && *why && !p->text[0])
		snprintf(p->text, sizeof(p->text), "%s", why);
	if (!commit && !p->durable) {
		tos_count(p->c->x, "parts_aborted_total", 1);
		abort_part(p, why);
		ok(p->c->x, take(&p->decide_token), NULL);
		part_step(p, tos_now_ms(p->c->x));
	} else if (later && p->state == P_PREPARED) {
		decided(p);
	} else {
		turn(p, P_DECIDING);
		decision_write(p);
	}
}

/* An operator said otherwise, and the carrier may have acted on it. */
static void decided_otherwise(struct part *p, bool commit)
{
	if (p->mixed || !p->by[0])
		return;
	p->mixed = true;
	tos_count(p->c->x, "mixed_total", 1);
	logf_(p->c->x, 4,
		"%s was %s here by %s, and %s elsewhere by its coordinator: %s has to be put right by hand",
		p->tx, p->commit ? "committed" : "aborted", p->by,
		commit ? "committed" : "aborted", p->carrier);
	if (row_put(p, p->state, p->done ? keep_until(p->c->x) : 0, on_kept) == 0)
		p->writing = true;
}

void part_decide(struct commit *c, const struct asker *a)
{
	struct part *p = part_find(
		c, tos_get_text(a->args, "tx", ""), tos_get_text(a->args, "carrier", ""));
	bool commit = tos_get_bool(a->args, "commit", false),
	     later = tos_get_bool(a->args, "later", false);
	bool waits = p && (p->state == P_JOINED || p->state == P_ASKED ||
				  p->state == P_PREPARED || p->state == P_ENTERING);

	if (p && strcmp(a->from, p->coordinator) != 0) {
		no(c->x, a->m->token, TOS_ERR_DENIED, "only the coordinator decides");
		return;
	}
	if (p)
		p->hurry = tos_get_bool(a->args, "wait", false);
	if (!p) {
		if (commit)
			no(c->x, a->m->token, TOS_ERR_NOT_FOUND,
				"nothing is known of its vote here");
		else
			ok(c->x, a->m->token, NULL);
	} else if (final(p) && (later || p->kept || !p->durable)) {
		if (p->commit != commit)
			decided_otherwise(p, commit);
		ok(c->x, a->m->token, decided_map(p));
	} else if (waits && commit && p->state != P_PREPARED && !p->one_phase) {
		no(c->x, a->m->token, TOS_ERR_NOT_FOUND, "its yes is not known here any more");
	} else if (waits) {
		no(c->x, take(&p->decide_token), TOS_ERR_CANCELLED, "told again");
		p->decide_token = a->m->token;
		decide(p, commit, tos_get_text(a->args, "text", ""), later);
	} else {
		no(c->x, a->m->token, TOS_ERR_STATE, "the journal is being written");
	}
}

/* Whoever is away for a minute may be away for long. */
static void longer(struct part *p, uint32_t first_ms)
{
	int64_t most = tos_now_ms(p->c->x) - p->changed > FORGET_MS ? FORGET_MS : AGAIN_MOST_MS;

	p->pause_ms = p->pause_ms ? 2 * p->pause_ms : first_ms;
	if (p->pause_ms > most)
		p->pause_ms = (uint32_t)most;
}

static void on_outcome(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct part *p = arg;
	const struct tos_value *v = tos_at(elements, 0);
	const char *state = tos_get_text(v, "state", "");

	(void)folder;
	(void)text;
	p->busy--;
	p->asking = false;
	longer(p, (uint32_t)setting(x, "ask/ms"));
	p->ask_at = tos_now_ms(x) + p->pause_ms;
	if (rc < 0 || p->state != P_PREPARED)
		return;
	if (strcmp(state, "committed") == 0)
		decide(p, true, NULL, true);
	else if (strcmp(state, "aborted") == 0)
		decide(p, false, tos_get_text(v, "text", "the coordinator has aborted it"),
			true);
}

static void outcome_ask(struct part *p)
{
	struct tos_value *args = tos_map();

	tos_set(args, "tx", tos_text(p->tx));
	tos_set(args, "carrier", tos_text(p->carrier));
	if (ask(p->c->x, p->coordinator, "OUTCOME", args, CALL_MS, on_outcome, p) == 0) {
		p->busy++;
		p->asking = true;
		tos_count(p->c->x, "asked_total", 1);
	} else {
		p->ask_at = tos_now_ms(p->c->x) + setting(p->c->x, "ask/ms");
	}
}

bool part_resolve(struct commit *c, const char *id, bool commit, const char *by)
{
	bool found = false;

	for (struct part *p = c->parts; p; p = p->next) {
		if (strcmp(p->tx, id) != 0 || p->state != P_PREPARED)
			continue;
		found = true;
		snprintf(p->by, sizeof(p->by), "%s", by);
		logf_(c->x, 3, "%s of %s is %s by %s, without its coordinator's word",
			p->carrier, p->tx, commit ? "committed" : "aborted", by);
		decide(p, commit, "an operator decided", false); /* nobody else keeps it */
	}
	return found;
}

/* ---- the carrier is told, and says that it has done it */

static void on_told(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct part *p = arg;

	(void)text;
	(void)folder;
	p->busy--;
	p->telling = false;
	/* It has the folder, and is at work; or it has not, and gets it again. */
	if (rc == 0)
		p->pause_ms = AGAIN_MOST_MS;
	else
		longer(p, AGAIN_MS);
	p->tell_at = tos_now_ms(x) + p->pause_ms;
	tick_soon(p->c);
	if (rc == 0)
		vote_answered(p, tos_at(elements, 0));
}

static void tell(struct part *p)
{
	const char *verb = p->state == P_ASKED       ? "PREPARE"
			   : p->state == P_COMMITTED ? "COMMIT"
						     : "ABORT";
	struct tos_value *v = tos_map();
	char dest[NAME_BYTES + 72];

	tos_set(v, "tx", tos_text(p->tx));
	if (p->state == P_ASKED) {
		p->asked = p->e;
		tos_set(v, "answer", tos_bool(true)); /* may be the vote */
		tos_set(v, "dry", tos_bool(p->dry));
		tos_set(v, "left_ms", tos_int(p->deadline - tos_now_ms(p->c->x)));
		if (p->data)
			tos_set(v, "data", tos_value_copy(p->data));
	} else {
		if (p->plan)
			tos_set(v, "plan", tos_value_copy(p->plan));
		if (p->text[0])
			tos_set(v, "text", tos_text(p->text));
	}
	snprintf(dest, sizeof(dest), "%s/%s", p->carrier, p->inbox);
	if (tos_call(p->c->x, dest, verb, one(v), CALL_MS, on_told, p) == 0) {
		p->busy++;
		p->telling = true;
	} else {
		p->tell_at = tos_now_ms(p->c->x) + AGAIN_MOST_MS;
	}
}

static void end_say(struct part *p);

static void on_done(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct part *p = arg;

	(void)folder;
	(void)elements;
	p->busy--;
	p->writing = false;
	if (rc < 0) {
		p->done = false;
		no(x, take(&p->done_token), rc, text);
		return;
	}
	p->kept = true;
	p->ending = true;
	ok(x, take(&p->done_token), NULL);
	if (p->hurry)
		end_say(p);
}

static void done_write(struct part *p)
{
	if (row_put(p, p->state, keep_until(p->c->x), on_done) == 0) {
		p->writing = true;
		return;
	}
	p->done = false;
	no(p->c->x, take(&p->done_token), TOS_ERR_FULL, "the journal takes nothing just now");
}

static void done_late(struct tos_ext *x, void *arg)
{
	struct part *p = arg;

	(void)x;
	p->busy--;
	done_write(p);
}

/* Where the coordinator's carrier waits for all to have acted it is written at once. Else only this
 * carrier waits, and the disk is left to those for whom a transaction waits. */
static void done_keep(struct part *p)
{
	if (!p->hurry && tos_timer(p->c->x, LAZY_MS, done_late, p))
		p->busy++;
	else
		done_write(p);
}

void part_done(struct commit *c, const struct asker *a)
{
	struct part *p = part_find(c, tos_get_text(a->args, "tx", ""), a->m->sender);
	const struct tos_value *result = tos_get(a->args, "result");

	if (!p) {
		no(c->x, a->m->token, TOS_ERR_NOT_FOUND,
			"you have no part in that transaction here");
		return;
	}
	if (!era_ok(p, a))
		return;
	if (!final(p) || value_bytes(result) > PLAN_MAX) {
		no(c->x, a->m->token, final(p) ? TOS_ERR_TOO_LARGE : TOS_ERR_STATE,
			final(p) ? "a result is at most 16 KiB" : "nothing is decided yet");
		return;
	}
	if (p->done && p->done_token) { /* it is being written */
		no(c->x, take(&p->done_token), TOS_ERR_CANCELLED, "it said so again");
		p->done_token = a->m->token;
		return;
	}
	if (p->done) {
		ok(c->x, a->m->token, NULL);
		return;
	}
	p->done = true;
	tos_value_free(p->result);
	p->result = tos_value_copy(result);
	p->done_token = a->m->token;
	if (!p->durable) {
		p->ending = true;
		ok(c->x, take(&p->done_token), NULL);
	} else {
		done_keep(p);
	}
	tick_soon(c);
}

static void on_ended(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct part *p = arg;

	(void)text;
	(void)folder;
	(void)elements;
	p->busy--;
	if (rc == 0 || rc == TOS_ERR_NOT_FOUND || ++p->end_tries > 20)
		p->ending = false;
	p->end_at = tos_now_ms(x) + AGAIN_MS;
}

/* The coordinator likes to know, and does not depend on it. */
static void end_say(struct part *p)
{
	struct tos_value *args = tos_map();

	tos_set(args, "tx", tos_text(p->tx));
	tos_set(args, "carrier", tos_text(p->carrier));
	if (p->result)
		tos_set(args, "result", tos_value_copy(p->result));
	p->end_at = INT64_MAX;
	if (ask(p->c->x, p->coordinator, "ENDED", args, CALL_MS, on_ended, p) == 0)
		p->busy++;
	else
		p->ending = false;
}

/* ---- time */

static bool forgotten(const struct part *p, int64_t now)
{
	int64_t old = now - p->changed;

	if (p->busy || !final(p) || p->ending)
		return false;
	if (p->durable)
		return p->kept && old > setting(p->c->x, "keep/ms");
	return old > FORGET_MS || (p->done && !p->refused && old > 5000);
}

/* The row of a decision that no carrier came for has no end of its own. */
static void part_forget(struct part *p)
{
	char key[TX_BYTES + NAME_BYTES + 8];

	key_of(p, key, sizeof(key));
	if (p->durable)
		journal_drop(p->c->x, key);
	if (p->durable && !p->done)
		logf_(p->c->x, 3, "%s of %s never acted on its decision (%s)", p->carrier,
			p->tx, word_of(p->state));
	part_drop(p);
}

/* The oldest that is over makes room. */
static bool part_evict(struct commit *c)
{
	struct part *last = NULL;

	for (struct part *p = c->parts; p; p = p->next)
		if (final(p) && !p->busy && !p->ending && p->done)
			last = p;
	if (last)
		part_forget(last);
	return last != NULL;
}

/* A decision that the journal has to get. */
static bool unkept(const struct part *p)
{
	return p->state == P_DECIDING || (final(p) && p->durable && !p->kept);
}

static void part_step(struct part *p, int64_t now)
{
	bool told = p->state == P_ASKED || (final(p) && !p->done);

	if ((p->state == P_JOINED || p->state == P_ASKED) && now >= p->deadline) {
		abort_part(p, p->state == P_ASKED
				      ? "it did not vote in time"
				      : "the coordinator asked for no vote in time");
		return;
	}
	/* A dry run's yes binds nobody. */
	if (p->state == P_PREPARED && p->dry && now >= p->deadline)
		abort_part(p, "the dry run is over");
	else if (p->state == P_VOTING && !p->writing && now >= p->write_at)
		vote_write(p);
	else if (unkept(p) && !p->writing && now >= p->write_at)
		decision_write(p);
	else if (p->state == P_PREPARED && !p->asking && now >= p->ask_at)
		outcome_ask(p);
	else if (told && !p->telling && now >= p->tell_at)
		tell(p);
	if (p->ending && now >= p->end_at)
		end_say(p);
}

bool part_tick(struct commit *c, int64_t now)
{
	struct part **at = &c->parts;
	bool more = false;

	while (*at) {
		struct part *p = *at;

		part_step(p, now);
		if (forgotten(p, now)) {
			part_forget(p);
			continue;
		}
		more = more || !final(p) || !p->done || p->busy || p->ending || !p->durable ||
		       !p->kept;
		at = &p->next;
	}
	return more;
}

static bool doubtful(const struct part *p)
{
	return p->state == P_PREPARED && !p->dry &&
	       (p->loaded || tos_now_ms(p->c->x) > p->deadline);
}

int64_t part_doubts(const struct commit *c)
{
	int64_t n = 0;

	for (const struct part *p = c->parts; p; p = p->next)
		n += doubtful(p);
	return n;
}

void part_list(struct commit *c, const struct asker *a, struct tos_value *rows)
{
	for (const struct part *p = c->parts; p && tos_len(rows) < 5000; p = p->next) {
		struct tos_value *v;

		if (!a->all && strcmp(a->owner, p->owner) != 0)
			continue;
		v = state_map(p);
		if (doubtful(p))
			tos_set(v, "state", tos_text("in-doubt"));
		tos_set(v, "role", tos_text("participant"));
		tos_set(v, "carrier", tos_text(p->carrier));
		tos_set(v, "owner", tos_text(p->owner));
		tos_set(v, "kernel", tos_text(tos_kernel_name(c->x)));
		tos_set(v, "coordinator", tos_text(p->coordinator));
		tos_set(v, "since_ms", tos_int(p->since_wall));
		tos_set(v, "done", tos_bool(p->done));
		if (p->by[0])
			tos_set(v, "by", tos_text(p->by));
		if (p->mixed)
			tos_set(v, "mixed", tos_bool(true));
		tos_push(rows, v);
	}
}
