/*
 * Transactions that were begun at this kernel. A commit is in the journal before anybody hears of it,
 * and stays there until every participant's kernel has it in its own; everything else is an abort. The
 * carrier that began one need not live: before the decision its transaction is aborted at the
 * deadline, after it the decision stands and is delivered.
 */
#include "commit.h"

#include <sys/random.h>

#define VET_MS          3000 /* a home may hear of an arrival a little later than we of the carrier */
#define TELL_MS         60000 /* how long an abort is told to whoever promised nothing */
#define ARGS_MAX        4096
#define DONE_MS         1000 /* who has not said that it has acted is asked */
#define ANSWER_GRACE_MS 200

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

static const char *word_of(enum tx_state s)
{
	static const char *const words[] = {
#define X(sym, word) [sym] = (word),
		TX_STATES(X)
#undef X
	};
	return words[s];
}

/* ---- finding, making, freeing */

static struct tx *tx_find(struct commit *c, const char *id)
{
	struct tx *t = c->txs;

	while (t && strcmp(t->id, id) != 0)
		t = t->next;
	return t;
}

static struct member *member_find(const struct tx *t, const char *carrier)
{
	struct member *m = t->members;

	while (m && strcmp(m->carrier, carrier) != 0)
		m = m->next;
	return m;
}

static struct tx *tx_new(struct commit *c)
{
	struct tx *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->c = c;
	t->phases = 2;
	t->next = c->txs;
	c->txs = t;
	c->n_txs++;
	return t;
}

static void tx_free(struct tx *t)
{
	while (t->members) {
		struct member *m = t->members;

		t->members = m->next;
		tos_value_free(m->plan);
		tos_value_free(m->result);
		free(m);
	}
	tos_value_free(t->admit);
	tos_value_free(t->data);
	free(t->args);
	free(t);
}

static void tx_drop(struct tx *t)
{
	struct tx **at = &t->c->txs;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	t->c->n_txs--;
	tx_free(t);
}

void tx_free_all(struct commit *c)
{
	while (c->txs)
		tx_drop(c->txs);
	while (c->entries) {
		struct entry *e = c->entries;

		c->entries = e->next;
		free(e);
	}
}

static void entry_free(struct entry *e)
{
	struct entry **at = &e->c->entries;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	free(e);
}

static struct member *member_new(struct tx *t, const char *carrier, const char *kernel)
{
	struct member *m = calloc(1, sizeof(*m)), **at = &t->members;

	if (!m || !copy(m->carrier, sizeof(m->carrier), carrier) ||
		!copy(m->kernel, sizeof(m->kernel), kernel)) {
		free(m);
		return NULL;
	}
	m->t = t;
	while (*at)
		at = &(*at)->next;
	*at = m;
	t->n_members++;
	return m;
}

static void turn(struct tx *t, enum tx_state s)
{
	t->state = s;
	t->changed = tos_now_ms(t->c->x);
	for (struct member *m = t->members; m; m = m->next) {
		m->again_at = 0;
		m->pause_ms = 0;
	}
	tick_soon(t->c);
}

/* Wall time, as the name has it. */
static int64_t begun_of(const char *id)
{
	const char *slash = strrchr(id, '/');
	char digits[13] = "";

	if (slash && strlen(slash + 1) == 20)
		memcpy(digits, slash + 1, 12);
	return strtoll(digits, NULL, 16);
}

static int id_make(struct tos_ext *x, char out[TX_BYTES])
{
	uint32_t r;

	if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
		return TOS_ERR_NOMEM;
	snprintf(out, TX_BYTES, "%s/%012llx%08x", tos_kernel_name(x),
		(unsigned long long)wall_ms() & 0xffffffffffffull, r);
	return 0;
}

/* ---- answers */

static struct tos_value *member_map(const struct member *m)
{
	struct tos_value *v = tos_map();

	tos_set(v, "carrier", tos_text(m->carrier));
	tos_set(v, "kernel", tos_text(m->kernel));
	tos_set(v, "owner", tos_text(m->owner));
	tos_set(v, "e", era_value(&m->e));
	tos_set(v, "vote", tos_text(m->vote == V_YES ? "yes" : m->vote == V_NO ? "no" : ""));
	tos_set(v, "told", tos_bool(m->told));
	tos_set(v, "kept", tos_bool(m->kept));
	tos_set(v, "done", tos_bool(m->done));
	if (m->lost)
		tos_set(v, "lost", tos_bool(true));
	if (m->text[0])
		tos_set(v, "text", tos_text(m->text));
	if (m->plan)
		tos_set(v, "plan", tos_value_copy(m->plan));
	if (m->result)
		tos_set(v, "result", tos_value_copy(m->result));
	return v;
}

static struct tos_value *tx_map(const struct tx *t, enum tx_state as)
{
	struct tos_value *v = tos_map(), *members = tos_array();

	for (const struct member *m = t->members; m; m = m->next)
		tos_push(members, member_map(m));
	tos_set(v, "tx", tos_text(t->id));
	tos_set(v, "state", tos_text(word_of(as)));
	tos_set(v, "carrier", tos_text(t->carrier));
	tos_set(v, "owner", tos_text(t->owner));
	tos_set(v, "phases", tos_int(t->phases));
	tos_set(v, "members", members);
	if (t->name[0])
		tos_set(v, "name", tos_text(t->name));
	if (t->text[0])
		tos_set(v, "text", tos_text(t->text));
	if (t->by[0])
		tos_set(v, "by", tos_text(t->by));
	return v;
}

static void answer_prepare(struct tx *t)
{
	ok(t->c->x, take(&t->prepare_token), tx_map(t, t->state));
}

static void answer_commit(struct tx *t)
{
	if (t->state == T_COMMITTED)
		ok(t->c->x, take(&t->commit_token), tx_map(t, t->state));
	else
		no(t->c->x, take(&t->commit_token), TOS_ERR_ABORTED,
			t->text[0] ? t->text : "the transaction was aborted");
}

/* ---- the journal */

static int row_put(struct tx *t, enum tx_state as, int64_t expires, tos_answer_fn *done)
{
	struct tos_value *v = tx_map(t, as);
	char key[TX_BYTES + 4];
	int rc;

	tos_set(v, "e", era_value(&t->e));
	tos_set(v, "n", tos_int(t->n));
	tos_set(v, "seq", tos_int(t->seq));
	tos_set(v, "args", tos_bytes(t->args, t->n_args));
	tos_set(v, "begun", tos_int(t->begun_wall));
	tos_set(v, "settled", tos_bool(t->settled));
	snprintf(key, sizeof(key), "t/%s", t->id);
	rc = journal(t->c->x, key, v, expires, done, t);
	if (rc == 0)
		t->busy++;
	return rc;
}

static void on_noted(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct tx *t = arg;

	(void)folder;
	(void)elements;
	t->busy--;
	if (rc < 0)
		logf_(x, 3, "%s could not be noted as %s: %s", t->id, word_of(t->state), text);
}

static void member_load(struct tx *t, const struct tos_value *v)
{
	struct member *m =
		member_new(t, tos_get_text(v, "carrier", ""), tos_get_text(v, "kernel", ""));
	const char *vote = tos_get_text(v, "vote", "");

	if (!m)
		return;
	copy(m->owner, sizeof(m->owner), tos_get_text(v, "owner", ""));
	copy(m->text, sizeof(m->text), tos_get_text(v, "text", ""));
	era_read(tos_get(v, "e"), &m->e);
	m->vote = strcmp(vote, "yes") == 0 ? V_YES : strcmp(vote, "no") == 0 ? V_NO : V_NONE;
	m->told = m->kept =
		tos_get_bool(v, "told", false); /* rows have it when all have kept it */
	m->done = tos_get_bool(v, "done", false);
	m->lost = tos_get_bool(v, "lost", false);
	m->plan = tos_value_copy(tos_get(v, "plan"));
	m->result = tos_value_copy(tos_get(v, "result"));
}

void tx_load(struct commit *c, const char *id, const struct tos_value *row)
{
	struct tx *t = tx_new(c);
	const char *state = tos_get_text(row, "state", "");
	const struct tos_value *members = tos_get(row, "members");
	const uint8_t *args;

	if (!t)
		return;
	copy(t->id, sizeof(t->id), id);
	copy(t->carrier, sizeof(t->carrier), tos_get_text(row, "carrier", ""));
	copy(t->owner, sizeof(t->owner), tos_get_text(row, "owner", ""));
	copy(t->name, sizeof(t->name), tos_get_text(row, "name", ""));
	copy(t->text, sizeof(t->text), tos_get_text(row, "text", ""));
	copy(t->by, sizeof(t->by), tos_get_text(row, "by", ""));
	era_read(tos_get(row, "e"), &t->e);
	t->n = tos_get_int(row, "n", 0);
	t->seq = tos_get_int(row, "seq", 0);
	t->phases = (int)tos_get_int(row, "phases", 2);
	t->begun_wall = tos_get_int(row, "begun", 0);
	t->settled = tos_get_bool(row, "settled", false);
	args = tos_get_bytes(row, "args", &t->n_args);
	t->args = malloc(t->n_args + 1);
	if (t->args && args)
		memcpy(t->args, args, t->n_args);
	else
		t->n_args = 0;
	for (size_t i = 0; i < tos_len(members); i++)
		member_load(t, tos_at(members, i));
	t->loaded = true;
	if (strcmp(state, "committed") == 0) {
		turn(t, T_COMMITTED);
		if (!t->settled)
			logf_(c->x, 2, "%s was committed and is told again", t->id);
		return;
	}
	turn(t, T_ABORTED);
	if (strcmp(state, "aborted") == 0)
		return;
	/* What a restored store does not have may have been a commit all the same. */
	if (t->begun_wall <= c->restored_ms) {
		turn(t, T_DOUBT);
		logf_(c->x, 3,
			"%s is in doubt: this store was restored, and what was decided since is not known",
			t->id);
		return;
	}
	snprintf(t->text, sizeof(t->text), "its coordinator began again before it had decided");
	row_put(t, T_ABORTED, keep_until(c->x), on_noted);
}

/* ---- who may */

/* The transaction named, if it is that carrier's own. */
static struct tx *own(struct commit *c, const struct asker *a)
{
	struct tx *t = tx_find(c, tos_get_text(a->args, "tx", ""));
	int order = t ? era_compare(&a->e, &t->e) : 0;

	if (!t || strcmp(t->carrier, a->m->sender) != 0) {
		no(c->x, a->m->token, t ? TOS_ERR_DENIED : TOS_ERR_NOT_FOUND,
			t ? "another carrier began that transaction"
			  : "no transaction of that name was begun at this kernel");
		return NULL;
	}
	if (order < 0) {
		no(c->x, a->m->token, TOS_ERR_SUPERSEDED,
			"a higher incarnation of this carrier has it");
		return NULL;
	}
	t->e = a->e;
	return t;
}

static bool listed(const struct tos_value *list, const char *word)
{
	for (size_t i = 0; i < tos_len(list); i++)
		if (strcmp(tos_as_text(tos_at(list, i), ""), word) == 0)
			return true;
	return false;
}

/* Its owner's carriers, and those of listed principals; where carriers or kernels are listed, only
 * these. */
static bool admitted(
	const struct tx *t, const char *owner, const char *carrier, const char *kernel)
{
	const struct tos_value *carriers = tos_get(t->admit, "carriers"),
			       *kernels = tos_get(t->admit, "kernels");

	return (strcmp(owner, t->owner) == 0 ||
		       listed(tos_get(t->admit, "principals"), owner)) &&
	       (!carriers || listed(carriers, carrier)) &&
	       (!kernels || listed(kernels, kernel));
}

/* ---- aborting and committing */

static void members_step(struct tx *t, int64_t now);

static void abort_tx(struct tx *t, const char *why)
{
	if (!t->text[0])
		snprintf(t->text, sizeof(t->text), "%s", why);
	turn(t, T_ABORTED);
	tos_count(t->c->x, "aborted_total", 1);
	answer_prepare(t);
	answer_commit(t);
	/* Nobody waits for this: what is not there was aborted. */
	row_put(t, T_ABORTED, keep_until(t->c->x), on_noted);
	members_step(t, tos_now_ms(t->c->x));
}

static void settle(struct tx *t)
{
	bool all = true, kept = true, done = true;

	for (const struct member *m = t->members; m; m = m->next) {
		all = all && m->told;
		kept = kept && m->kept;
		done = done && (m->done || m->lost);
	}
	if (kept && !t->settled) {
		t->settled = true;
		row_put(t, T_COMMITTED, keep_until(t->c->x), on_noted);
	}
	if (all && (done || !t->wait_done))
		answer_commit(t);
}

static void commit_write(struct tx *t);

static void on_committed(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct tx *t = arg;

	(void)folder;
	(void)elements;
	t->busy--;
	t->writing = false;
	if (rc < 0 && !not_written(rc)) {
		t->write_at = tos_now_ms(x) + AGAIN_MS; /* it may be decided: it has to be */
		return;
	}
	if (rc < 0) {
		char why[TEXT_BYTES];

		snprintf(why, sizeof(why), "the decision could not be journaled: %s", text);
		abort_tx(t, why);
		return;
	}
	turn(t, T_COMMITTED);
	tos_count(x, "committed_total", 1);
	members_step(t, tos_now_ms(x));
	settle(t); /* there may be no member */
}

static void commit_write(struct tx *t)
{
	t->writing = row_put(t, T_COMMITTED, 0, on_committed) == 0;
	t->write_at = tos_now_ms(t->c->x) + AGAIN_MS;
}

static void commit_tx(struct tx *t)
{
	turn(t, T_DECIDING);
	commit_write(t);
}

/* All votes are in. */
static void voted(struct tx *t)
{
	bool yes = true, all = true;

	for (const struct member *m = t->members; m; m = m->next) {
		yes = yes && m->vote == V_YES;
		all = all && m->vote != V_NONE;
	}
	if (t->dry && all) {
		snprintf(t->text, sizeof(t->text), "a dry run: %s",
			yes ? "all would have voted yes" : "not all would have voted yes");
		abort_tx(t, NULL);
	} else if (yes && !t->dry) {
		turn(t, T_READY);
		answer_prepare(t);
		if (t->commit_wanted)
			commit_tx(t);
	}
}

/* ---- to the participants' kernels */

static void member_again(struct member *m)
{
	m->pause_ms = m->pause_ms ? 2 * m->pause_ms : AGAIN_MS;
	if (m->pause_ms > AGAIN_MOST_MS)
		m->pause_ms = AGAIN_MOST_MS;
	m->again_at = tos_now_ms(m->t->c->x) + m->pause_ms;
}

static void on_polled(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct member *m = arg;
	struct tx *t = m->t;
	const struct tos_value *v = tos_at(elements, 0);
	char why[TEXT_BYTES];

	(void)x;
	(void)folder;
	t->busy--;
	m->asking = false;
	if (t->state != T_ASKING)
		return;
	if (rc < 0) {
		snprintf(m->text, sizeof(m->text), "%s", text);
		member_again(m);
		return;
	}
	m->vote = tos_get_bool(v, "vote", false) ? V_YES : V_NO;
	tos_value_free(m->plan);
	m->plan = tos_value_copy(tos_get(v, "plan"));
	snprintf(m->text, sizeof(m->text), "%s", tos_get_text(v, "text", ""));
	if (m->vote == V_NO && !t->dry) {
		snprintf(why, sizeof(why), "%.60s at %.60s: %.120s", m->carrier, m->kernel,
			m->text[0] ? m->text : "it voted no");
		abort_tx(t, why);
	} else {
		voted(t);
	}
}

static void poll(struct member *m, int64_t now)
{
	struct tx *t = m->t;
	struct tos_value *args = tos_map();
	int64_t left = t->deadline - now;

	tos_set(args, "tx", tos_text(t->id));
	tos_set(args, "carrier", tos_text(m->carrier));
	tos_set(args, "dry", tos_bool(t->dry));
	tos_set(args, "left_ms", tos_int(left));
	if (t->data)
		tos_set(args, "data", tos_value_copy(t->data));
	m->asking = ask(t->c->x, m->kernel, "POLL", args,
			    (uint32_t)(left < CALL_MS ? left : CALL_MS), on_polled, m) == 0;
	if (m->asking)
		t->busy++;
	else
		member_again(m);
}

/* Its carrier has acted. */
static void member_done(struct member *m, const struct tos_value *result)
{
	if (m->done)
		return;
	m->done = true;
	tos_value_free(m->result);
	m->result = tos_value_copy(result);
}

static void on_told(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct member *m = arg;
	struct tx *t = m->t;
	const struct tos_value *v = tos_at(elements, 0);

	(void)folder;
	t->busy--;
	m->asking = false;
	if (rc < 0 && rc != TOS_ERR_NOT_FOUND) {
		member_again(m);
		return;
	}
	m->told = true;
	m->kept = m->kept || rc < 0 || !tos_get_bool(v, "later", false);
	if (rc == 0 && tos_get_bool(v, "done", false))
		member_done(m, tos_get(v, "result"));
	m->again_at = tos_now_ms(x) + DONE_MS;
	if (rc == TOS_ERR_NOT_FOUND && t->state == T_COMMITTED) {
		m->lost = true;
		snprintf(m->text, sizeof(m->text), "%s", text);
		tos_count(x, "lost_total", 1);
		logf_(x, 4,
			"%s was committed, and %s knows nothing of the yes of %s any more: %s",
			t->id, m->kernel, m->carrier, text);
	}
	if (t->state == T_COMMITTED)
		settle(t);
}

static void tell(struct member *m)
{
	struct tx *t = m->t;
	struct tos_value *args = tos_map();

	tos_set(args, "tx", tos_text(t->id));
	tos_set(args, "carrier", tos_text(m->carrier));
	tos_set(args, "commit", tos_bool(t->state == T_COMMITTED));
	tos_set(args, "later", tos_bool(true));
	if (t->wait_done && t->commit_token)
		tos_set(args, "wait", tos_bool(true));
	if (t->text[0])
		tos_set(args, "text", tos_text(t->text));
	m->asking = ask(t->c->x, m->kernel, "DECIDE", args, CALL_MS, on_told, m) == 0;
	if (m->asking)
		t->busy++;
	else
		member_again(m);
}

static void members_step(struct tx *t, int64_t now)
{
	for (struct member *m = t->members; m; m = m->next) {
		bool untold = !m->told &&
			      (t->state == T_COMMITTED ||
				      (t->state == T_ABORTED && now - t->changed <= TELL_MS));
		bool unkept = m->told && !m->kept && t->state == T_COMMITTED;
		/* what it said when we were not there */
		bool unheard = m->told && !m->done && !m->lost && t->state == T_COMMITTED &&
			       t->commit_token && t->wait_done;

		if (m->asking || now < m->again_at)
			continue;
		if (t->state == T_ASKING && m->vote == V_NONE)
			poll(m, now);
		else if (untold || unkept || unheard)
			tell(m);
	}
}

/* Enough have joined for what was asked. */
static void go_on(struct tx *t)
{
	if (t->state != T_OPEN || !t->poll_wanted || (int64_t)t->n_members < t->expect)
		return;
	if (t->phases == 1) {
		commit_tx(t);
		return;
	}
	turn(t, T_ASKING);
	if (!t->members)
		voted(t);
	else
		members_step(t, tos_now_ms(t->c->x));
}

static bool tx_evict(struct commit *c);

/* ---- BEGIN */

/* The first answer to this request, or why there is none: 0 it is a new one, 1 it was answered. */
static int repeated(struct commit *c, const struct asker *a, const uint8_t *args, size_t n_args)
{
	const char *name = tos_get_text(a->args, "name", "");

	for (struct tx *t = c->txs; t; t = t->next) {
		int order;

		if (strcmp(t->carrier, a->m->sender) != 0)
			continue;
		order = era_compare(&a->e, &t->e);
		if (order < 0) {
			no(c->x, a->m->token, TOS_ERR_SUPERSEDED,
				"a higher incarnation of this carrier has begun a transaction");
			return 1;
		}
		if (order > 0) { /* what it began then is nobody's any more */
			if (t->state == T_OPEN || t->state == T_ASKING || t->state == T_READY)
				abort_tx(t, "a higher incarnation of its carrier began anew");
			continue;
		}
		if (*name ? strcmp(name, t->name) != 0
			  : t->name[0] || t->n != a->n || t->seq != a->seq)
			continue;
		if (t->n_args != n_args || (args && memcmp(t->args, args, n_args) != 0)) {
			no(c->x, a->m->token, TOS_ERR_DIVERGED,
				*name ? "a transaction of that name was begun with other arguments"
				      : "the same request number came with other arguments");
			return 1;
		}
		if (t->state == T_BEGINNING) {
			no(c->x, take(&t->begin_token), TOS_ERR_CANCELLED,
				"it was asked again");
			t->begin_token = a->m->token;
		} else {
			ok(c->x, a->m->token, tx_map(t, t->state));
		}
		return 1;
	}
	return 0;
}

static void on_begun(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct tx *t = arg;

	(void)folder;
	(void)elements;
	t->busy--;
	if (rc < 0) {
		no(x, take(&t->begin_token), rc, text);
		snprintf(t->text, sizeof(t->text), "it could not be journaled");
		turn(t, T_ABORTED);
		return;
	}
	turn(t, T_OPEN);
	tos_count(x, "begun_total", 1);
	ok(x, take(&t->begin_token), tx_map(t, T_OPEN));
}

static bool texts(const struct tos_value *v)
{
	if (!v)
		return true;
	if (tos_type(v) != TOS_ARRAY || tos_len(v) > MEMBERS_MAX)
		return false;
	for (size_t i = 0; i < tos_len(v); i++)
		if (tos_type(tos_at(v, i)) != TOS_TEXT)
			return false;
	return true;
}

static bool begin_ok(const struct asker *a)
{
	const struct tos_value *admit = tos_get(a->args, "admit");
	int64_t phases = tos_get_int(a->args, "phases", 2);

	return (phases == 1 || phases == 2) &&
	       strlen(tos_get_text(a->args, "name", "")) < TEXT_BYTES &&
	       (!admit || tos_type(admit) == TOS_MAP) && texts(tos_get(admit, "principals")) &&
	       texts(tos_get(admit, "carriers")) && texts(tos_get(admit, "kernels"));
}

static void begin(struct commit *c, const struct asker *a, uint8_t *args, size_t n_args)
{
	struct tx *t = tx_new(c);
	int64_t ms = tos_get_int(a->args, "timeout_ms", setting(c->x, "timeout/ms")),
		most = setting(c->x, "timeout/most_ms");

	if (!t || id_make(c->x, t->id) < 0) {
		free(args);
		no(c->x, a->m->token, TOS_ERR_NOMEM, "out of memory");
		return;
	}
	copy(t->carrier, sizeof(t->carrier), a->m->sender);
	copy(t->owner, sizeof(t->owner), a->owner);
	copy(t->name, sizeof(t->name), tos_get_text(a->args, "name", ""));
	t->e = a->e;
	t->n = a->n;
	t->seq = a->seq;
	t->args = args;
	t->n_args = n_args;
	t->phases = (int)tos_get_int(a->args, "phases", 2);
	t->admit = tos_value_copy(tos_get(a->args, "admit"));
	t->begun_wall = begun_of(t->id);
	t->deadline = tos_now_ms(c->x) + (ms < 1 ? 1 : ms > most ? most : ms);
	t->begin_token = a->m->token;
	turn(t, T_BEGINNING);
	if (row_put(t, T_OPEN, keep_until(c->x) + most, on_begun) < 0) {
		no(c->x, take(&t->begin_token), TOS_ERR_FULL,
			"the journal takes nothing just now");
		turn(t, T_ABORTED);
	}
}

void tx_begin(struct commit *c, const struct asker *a)
{
	uint8_t *args = NULL;
	size_t n = 0;

	if ((a->args && tos_encode(a->args, &args, &n) < 0) || n > ARGS_MAX || !begin_ok(a)) {
		free(args);
		no(c->x, a->m->token, TOS_ERR_MALFORMED,
			"BEGIN wants {[name], [phases: 1 or 2], [timeout_ms], [admit: {[principals], [carriers], [kernels]}]}");
		return;
	}
	if (repeated(c, a, args, n)) {
		free(args);
		return;
	}
	if ((int64_t)c->n_txs >= setting(c->x, "most/transactions") && !tx_evict(c)) {
		free(args);
		no(c->x, a->m->token, TOS_ERR_LIMIT,
			"this kernel coordinates too many transactions already");
		return;
	}
	begin(c, a, args, n);
}

/* ---- PREPARE, COMMIT, ABORT */

static void want_votes(struct tx *t, const struct asker *a)
{
	int64_t ms = tos_get_int(a->args, "timeout_ms", 0), now = tos_now_ms(t->c->x);

	if (t->state != T_OPEN || t->poll_wanted)
		return;
	t->expect = tos_get_int(a->args, "expect", 0);
	t->dry = tos_get_bool(a->args, "dry", false);
	if (tos_get(a->args, "data"))
		t->data = tos_value_copy(tos_get(a->args, "data"));
	if (ms > 0 && ms < t->deadline - now)
		t->deadline = now + ms;
	t->poll_wanted = true;
}

static bool votes_ok(struct commit *c, const struct tx *t, const struct asker *a)
{
	if (value_bytes(tos_get(a->args, "data")) > DATA_MAX) {
		no(c->x, a->m->token, TOS_ERR_TOO_LARGE, "data is at most 64 KiB");
		return false;
	}
	if (t->state == T_BEGINNING || t->state == T_DOUBT) {
		no(c->x, a->m->token, t->state == T_DOUBT ? TOS_ERR_IN_DOUBT : TOS_ERR_STATE,
			"what became of it is not known here: tos resolve --tx");
		return false;
	}
	return true;
}

void tx_prepare(struct commit *c, const struct asker *a)
{
	struct tx *t = own(c, a);

	if (!t || !votes_ok(c, t, a))
		return;
	if (t->phases == 1) {
		no(c->x, a->m->token, TOS_ERR_STATE, "a transaction of one phase has no votes");
		return;
	}
	no(c->x, take(&t->prepare_token), TOS_ERR_CANCELLED, "asked again");
	t->prepare_token = a->m->token;
	want_votes(t, a);
	if (t->state == T_OPEN || t->state == T_ASKING)
		go_on(t);
	else
		answer_prepare(t);
}

void tx_commit(struct commit *c, const struct asker *a)
{
	struct tx *t = own(c, a);

	if (!t || !votes_ok(c, t, a))
		return;
	if (tos_get_bool(a->args, "dry", false) || (t->dry && t->state != T_ABORTED)) {
		no(c->x, a->m->token, TOS_ERR_STATE, "a dry run is not committed");
		return;
	}
	no(c->x, take(&t->commit_token), TOS_ERR_CANCELLED, "asked again");
	t->commit_token = a->m->token;
	t->answer_by = tos_now_ms(c->x) + a->m->deadline_ms - ANSWER_GRACE_MS;
	tick_soon(c); /* one that is settled is looked at again for who waits */
	t->commit_wanted = true;
	t->wait_done = strcmp(tos_get_text(a->args, "wait", ""), "done") == 0;
	want_votes(t, a);
	if (t->state == T_OPEN)
		go_on(t);
	else if (t->state == T_READY)
		commit_tx(t);
	else if (t->state == T_COMMITTED)
		settle(t);
	else if (t->state == T_ABORTED)
		answer_commit(t);
}

void tx_abort(struct commit *c, const struct asker *a)
{
	struct tx *t = own(c, a);

	if (!t || !votes_ok(c, t, a))
		return;
	if (t->state == T_COMMITTED || t->state == T_DECIDING) {
		no(c->x, a->m->token, TOS_ERR_COMMITTED, "the transaction was committed");
		return;
	}
	if (t->state != T_ABORTED)
		abort_tx(t, tos_get_text(a->args, "text", "its coordinator gave it up"));
	ok(c->x, a->m->token, tx_map(t, t->state));
}

void tx_status(struct commit *c, const struct asker *a)
{
	struct tx *t = tx_find(c, tos_get_text(a->args, "tx", ""));

	if (!t || !(a->all || strcmp(a->owner, t->owner) == 0 ||
			  (a->carrier && member_find(t, a->m->sender))))
		no(c->x, a->m->token, TOS_ERR_NOT_FOUND,
			"no transaction of that name was begun at this kernel");
	else
		ok(c->x, a->m->token, tx_map(t, t->state));
}

/* ---- ENTER: another kernel's Commit, for a carrier there */

static void enter_answer(struct tx *t, uint64_t token)
{
	struct tos_value *v = tos_map();
	int64_t left = t->deadline - tos_now_ms(t->c->x);

	tos_set(v, "state", tos_text(word_of(t->state)));
	tos_set(v, "phases", tos_int(t->phases));
	tos_set(v, "left_ms", tos_int(left > 0 ? left : 0));
	if (t->text[0])
		tos_set(v, "text", tos_text(t->text));
	ok(t->c->x, token, v);
}

/* NULL: it was refused. */
static struct tx *enterable(struct commit *c, const char *id, uint64_t token)
{
	struct tx *t = tx_find(c, id);

	if (t && t->state == T_OPEN)
		return t;
	if (!t)
		no(c->x, token, TOS_ERR_NOT_FOUND, "no transaction of that name is open");
	else if (t->state == T_COMMITTED || t->state == T_DECIDING)
		no(c->x, token, TOS_ERR_COMMITTED, "the transaction was committed without it");
	else if (t->state == T_ABORTED)
		no(c->x, token, TOS_ERR_ABORTED, t->text);
	else
		no(c->x, token, TOS_ERR_STATE, "the transaction takes nobody in any more");
	return NULL;
}

static void vet(struct entry *e);

static void vet_again(struct tos_ext *x, void *arg)
{
	(void)x;
	vet(arg);
}

static void vetted(struct entry *e, const char *owner)
{
	struct commit *c = e->c;
	struct tx *t = enterable(c, e->tx, e->token);
	struct member *m;

	if (!t)
		return;
	if (!admitted(t, owner, e->carrier, e->kernel)) {
		no(c->x, e->token, TOS_ERR_DENIED,
			"the transaction does not admit this carrier");
		tos_count(c->x, "denied_total", 1);
		return;
	}
	m = member_find(t, e->carrier);
	if (!m && t->n_members < MEMBERS_MAX)
		m = member_new(t, e->carrier, e->kernel);
	if (!m) {
		no(c->x, e->token, TOS_ERR_LIMIT, "the transaction has too many participants");
		return;
	}
	copy(m->owner, sizeof(m->owner), owner);
	m->e = e->e;
	enter_answer(t, e->token);
	go_on(t);
}

static void on_owner(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct entry *e = arg;
	char why[TEXT_BYTES];

	(void)folder;
	if (rc == 0) {
		vetted(e, tos_get_text(tos_at(elements, 0), "owner", ""));
	} else {
		snprintf(why, sizeof(why), "%.60s shows no ticket of %.60s that holds: %.90s",
			e->home, e->carrier, text);
		no(x, e->token, TOS_ERR_DENIED, why);
		tos_count(x, "forged_total", 1);
		logf_(x, 3, "a participant was refused: %s", why);
	}
	entry_free(e);
}

/* A home of its own making could say anything of whose it is: the owner has signed that. */
static void owner_ask(struct entry *e, const struct tos_value *ticket)
{
	struct tos_value *args = tos_map();

	tos_set(args, "name", tos_text(e->carrier));
	if (ticket)
		tos_set(args, "ticket", tos_value_copy(ticket));
	if (tos_call(e->c->x, "Home", "OWNER", one(args), CALL_MS, on_owner, e) < 0) {
		no(e->c->x, e->token, TOS_ERR_FULL, "the kernel takes no more calls");
		entry_free(e);
	}
}

/* Its home says where a carrier is; the kernel that speaks for it could say anything. */
static void on_where(struct tos_ext *x, void *arg, int rc, const char *text, const char *folder,
	const struct tos_value *elements)
{
	struct entry *e = arg;
	const struct tos_value *v = tos_at(elements, 0);
	const char *kernel = tos_get_text(v, "kernel", "");
	char why[TEXT_BYTES];

	(void)folder;
	if (rc < 0) {
		snprintf(why, sizeof(why), "%.60s, home of %.60s: %.100s", e->home, e->carrier,
			text);
		no(x, e->token, rc == TOS_ERR_NOT_FOUND ? TOS_ERR_DENIED : rc, why);
	} else if (strcmp(kernel, e->kernel) == 0) {
		owner_ask(e, tos_get(v, "ticket"));
		return;
	} else if (tos_now_ms(x) < e->until && tos_timer(x, AGAIN_MS, vet_again, e)) {
		return;
	} else {
		snprintf(why, sizeof(why), "%.60s says that %.60s is not at %.60s", e->home,
			e->carrier, e->kernel);
		no(x, e->token, TOS_ERR_DENIED, why);
		tos_count(x, "forged_total", 1);
		logf_(x, 3, "a participant was refused: %s", why);
	}
	entry_free(e);
}

static void vet(struct entry *e)
{
	struct tos_value *args = tos_map();
	char dest[KERNEL_BYTES + 8] = "Home";

	if (strcmp(e->home, tos_kernel_name(e->c->x)) != 0)
		snprintf(dest, sizeof(dest), "%s/Home", e->home);
	tos_set(args, "name", tos_text(e->carrier));
	if (tos_call(e->c->x, dest, "WHERE", one(args), CALL_MS, on_where, e) < 0) {
		no(e->c->x, e->token, TOS_ERR_UNREACHABLE, "the carrier's home can't be asked");
		entry_free(e);
	}
}

static struct entry *entry_new(struct commit *c, const struct asker *a)
{
	const char *carrier = tos_get_text(a->args, "carrier", "");
	struct entry *e = calloc(1, sizeof(*e));
	size_t n = strcspn(carrier, "#");

	if (!e || !carrier[n] || n == 0 || n >= sizeof(e->home) ||
		!copy(e->carrier, sizeof(e->carrier), carrier) ||
		!copy(e->tx, sizeof(e->tx), tos_get_text(a->args, "tx", ""))) {
		free(e);
		return NULL;
	}
	memcpy(e->home, carrier, n);
	e->c = c;
	copy(e->kernel, sizeof(e->kernel), a->from);
	era_read(tos_get(a->args, "e"), &e->e);
	e->token = a->m->token;
	e->until = tos_now_ms(c->x) + VET_MS;
	e->next = c->entries;
	c->entries = e;
	return e;
}

/* It joins again after a crash of its own or of its kernel: 0 it is a new one. */
static bool entered_again(struct tx *t, const struct asker *a, struct member *m)
{
	struct era e;
	int order;

	if (!m)
		return false;
	era_read(tos_get(a->args, "e"), &e);
	order = era_compare(&e, &m->e);
	if (strcmp(m->kernel, a->from) != 0) {
		no(t->c->x, a->m->token, TOS_ERR_DENIED, "it takes part at another kernel");
	} else if (order < 0) {
		no(t->c->x, a->m->token, TOS_ERR_SUPERSEDED, "a higher incarnation takes part");
	} else {
		m->e = e;
		m->again_at = 0;
		m->pause_ms = 0;
		enter_answer(t, a->m->token);
		tick_soon(t->c);
	}
	return true;
}

void tx_enter(struct commit *c, const struct asker *a)
{
	const char *id = tos_get_text(a->args, "tx", "");
	struct tx *t = tx_find(c, id);
	struct entry *e;

	if (t && entered_again(t, a, member_find(t, tos_get_text(a->args, "carrier", ""))))
		return;
	if (!enterable(c, id, a->m->token))
		return;
	e = entry_new(c, a);
	if (e)
		vet(e);
	else
		no(c->x, a->m->token, TOS_ERR_MALFORMED, "ENTER wants {tx, carrier, e}");
}

/* ---- OUTCOME, ENDED */

static void outcome_say(struct commit *c, uint64_t token, const char *state, const char *text)
{
	struct tos_value *v = tos_map();

	tos_set(v, "state", tos_text(state));
	if (*text)
		tos_set(v, "text", tos_text(text));
	ok(c->x, token, v);
}

/* Nothing says that it was committed. Was this store always here? */
static void on_restored(struct tos_ext *x, void *arg, int rc, const char *text,
	const char *folder, const struct tos_value *elements)
{
	struct entry *e = arg;
	struct commit *c = e->c;
	const struct tx *t = tx_find(c, e->tx);

	(void)text;
	(void)folder;
	(void)x;
	if (rc == 0)
		c->restored_ms = tos_get_int(tos_at(elements, 0), "restored_ms", 0);
	if (rc < 0)
		no(x, e->token, rc, "the journal does not answer");
	else if (t && (!t->loaded || t->by[0])) /* ours, or an operator has settled it */
		outcome_say(c, e->token, word_of(t->state), t->text);
	else if (begun_of(e->tx) <= c->restored_ms)
		outcome_say(c, e->token, "in-doubt",
			"the coordinator's store was restored: what was decided is not known there");
	else
		outcome_say(c, e->token, "aborted",
			t && t->text[0] ? t->text : "the coordinator knows of no commit");
	entry_free(e);
}

void tx_outcome(struct commit *c, const struct asker *a)
{
	const char *id = tos_get_text(a->args, "tx", ""),
		   *carrier = tos_get_text(a->args, "carrier", "");
	struct tx *t = tx_find(c, id);
	struct member *m = t ? member_find(t, carrier) : NULL;
	char coordinator[KERNEL_BYTES];
	struct entry *e;

	coordinator_of(id, coordinator);
	if (strcmp(coordinator, tos_kernel_name(c->x)) != 0) {
		no(c->x, a->m->token, TOS_ERR_MALFORMED,
			"that transaction is another kernel's");
	} else if (t && t->state == T_COMMITTED && !m && !t->by[0]) {
		/* It was told that it takes part, and we have committed without it. */
		outcome_say(c, a->m->token, "aborted", "it was committed without this carrier");
	} else if (t && (t->state != T_ABORTED || !t->loaded) && t->state != T_DOUBT) {
		outcome_say(c, a->m->token, word_of(t->state), t->text);
	} else {
		e = entry_new(c, a);
		if (!e)
			no(c->x, a->m->token, TOS_ERR_MALFORMED, "OUTCOME wants {tx, carrier}");
		else if (tos_call(c->x, "Journal", "INFO", one(tos_map()), 0, on_restored, e) <
			 0) {
			no(c->x, a->m->token, TOS_ERR_FULL, "the journal can't be asked");
			entry_free(e);
		}
	}
}

void tx_ended(struct commit *c, const struct asker *a)
{
	struct tx *t = tx_find(c, tos_get_text(a->args, "tx", ""));
	struct member *m = t ? member_find(t, tos_get_text(a->args, "carrier", "")) : NULL;

	if (!m || strcmp(m->kernel, a->from) != 0) {
		no(c->x, a->m->token, TOS_ERR_NOT_FOUND, "it takes no part in that");
		return;
	}
	m->told = m->kept = true; /* it is said when its journal has it */
	member_done(m, tos_get(a->args, "result"));
	ok(c->x, a->m->token, NULL);
	if (t->state == T_COMMITTED)
		settle(t);
}

/* ---- an operator */

bool tx_resolve(struct commit *c, const char *id, bool commit, const char *by)
{
	struct tx *t = tx_find(c, id);
	char coordinator[KERNEL_BYTES];

	coordinator_of(id, coordinator);
	if (strcmp(coordinator, tos_kernel_name(c->x)) != 0 ||
		(t ? t->state != T_DOUBT && !(t->state == T_ABORTED && t->loaded && !t->by[0] &&
						    t->begun_wall <= c->restored_ms)
		   : begun_of(id) > c->restored_ms))
		return false;
	if (!t) {
		t = tx_new(c);
		if (!t || !copy(t->id, sizeof(t->id), id))
			return false;
		t->begun_wall = begun_of(id);
		t->loaded = true;
	}
	snprintf(t->by, sizeof(t->by), "%s", by);
	snprintf(t->text, sizeof(t->text), "%s", "an operator decided");
	logf_(c->x, 3, "%s is %s by %s: the store was restored", id,
		commit ? "committed" : "aborted", by);
	if (commit)
		commit_tx(t);
	else
		abort_tx(t, NULL);
	return true;
}

/* ---- time */

static void late(struct tx *t)
{
	char who[TEXT_BYTES] = "", why[TEXT_BYTES];
	size_t n = 0;

	for (const struct member *m = t->members; m; m = m->next) {
		size_t at = strlen(who);

		if (m->vote != V_NONE || t->state != T_ASKING)
			continue;
		if (n++ < 3)
			snprintf(who + at, sizeof(who) - at, "%s%.50s at %.40s", at ? ", " : "",
				m->carrier, m->kernel);
	}
	if (t->state == T_ASKING)
		snprintf(why, sizeof(why), "no vote in time from %s%s", who,
			n > 3 ? ", ..." : "");
	else if (t->state == T_READY)
		snprintf(why, sizeof(why), "its coordinator did not decide in time");
	else if (t->poll_wanted)
		snprintf(why, sizeof(why), "%zu of %lld joined in time", t->n_members,
			(long long)t->expect);
	else
		snprintf(why, sizeof(why), "its coordinator asked for nothing in time");
	abort_tx(t, why);
}

static bool over(const struct tx *t)
{
	bool all = true;

	for (const struct member *m = t->members; m && t->state == T_ABORTED; m = m->next)
		all = all && m->told;
	return (t->state == T_COMMITTED && t->settled) ||
	       (t->state == T_ABORTED && (all || tos_now_ms(t->c->x) - t->changed > TELL_MS)) ||
	       t->state == T_DOUBT;
}

static void tx_step(struct tx *t, int64_t now)
{
	if ((t->state == T_OPEN || t->state == T_ASKING || t->state == T_READY) &&
		now >= t->deadline)
		late(t);
	else if (t->state == T_DECIDING && !t->writing && now >= t->write_at)
		commit_write(t);
	if (!over(t) || t->commit_token)
		members_step(t, now);
	if (t->commit_token && t->state == T_COMMITTED && now >= t->answer_by)
		answer_commit(t);
	if (t->state == T_COMMITTED && !t->settled)
		settle(t);
}

static bool forgettable(const struct tx *t)
{
	return over(t) && t->state != T_DOUBT && !t->busy && !t->commit_token;
}

static void tx_forget(struct tx *t)
{
	char key[TX_BYTES + 4];

	snprintf(key, sizeof(key), "t/%s", t->id);
	journal_drop(t->c->x, key);
	tx_drop(t);
}

/* The oldest that is over makes room: of what is remembered only so that repeats are answered. */
static bool tx_evict(struct commit *c)
{
	struct tx *last = NULL;

	for (struct tx *t = c->txs; t; t = t->next)
		if (forgettable(t))
			last = t;
	if (last)
		tx_forget(last);
	return last != NULL;
}

bool tx_tick(struct commit *c, int64_t now)
{
	struct tx **at = &c->txs;
	bool more = false;

	while (*at) {
		struct tx *t = *at;

		tx_step(t, now);
		if (forgettable(t) && now - t->changed > setting(c->x, "keep/ms")) {
			tx_forget(t);
			continue;
		}
		more = more || !over(t) || t->busy || t->commit_token;
		at = &t->next;
	}
	return more;
}

void tx_list(struct commit *c, const struct asker *a, struct tos_value *rows)
{
	for (const struct tx *t = c->txs; t && tos_len(rows) < 5000; t = t->next) {
		struct tos_value *v;
		size_t told = 0, done = 0;

		if (!a->all && strcmp(a->owner, t->owner) != 0)
			continue;
		for (const struct member *m = t->members; m; m = m->next) {
			told += m->told;
			done += m->done;
		}
		v = tx_map(t, t->state);
		tos_unset(v, "members"); /* STATUS has them */
		tos_set(v, "role", tos_text("coordinator"));
		tos_set(v, "kernel", tos_text(tos_kernel_name(c->x)));
		tos_set(v, "coordinator", tos_text(tos_kernel_name(c->x)));
		tos_set(v, "since_ms", tos_int(t->begun_wall));
		tos_set(v, "participants", tos_int((int64_t)t->n_members));
		tos_set(v, "told", tos_int((int64_t)told));
		tos_set(v, "done", tos_bool(t->n_members > 0 && done == t->n_members));
		tos_push(rows, v);
	}
}
