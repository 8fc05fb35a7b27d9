/*
 * Transactions that were begun at this kernel. A commit is in the journal before anybody hears of it,
 * and stays there until every participant's kernel has it in its own; everything else is an abort. The
 * carrier that began one need not live: before the decision its transaction is aborted at the
 * deadline, after it the decision stands and is delivered.
 *
 * This file has the verbs of that carrier, and what is due.
 */
#include "coordinator.h"

#include <sys/random.h>

#define ARGS_MAX        4096
#define ANSWER_GRACE_MS 200

const char *tx_word(enum tx_state s)
{
	static const char *const words[] = {
#define X(sym, word) [sym] = (word),
		TX_STATES(X)
#undef X
	};
	return words[s];
}

/* ---- finding, making, freeing */

struct tx *tx_find(struct commit *c, const char *id)
{
	struct tx *t = c->txs;

	while (t && strcmp(t->id, id) != 0)
		t = t->next;
	return t;
}

struct member *member_find(const struct tx *t, const char *carrier)
{
	struct member *m = t->members;

	while (m && strcmp(m->carrier, carrier) != 0)
		m = m->next;
	return m;
}

struct tx *tx_new(struct commit *c)
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

struct member *member_new(struct tx *t, const char *carrier, const char *kernel)
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

void tx_turn(struct tx *t, enum tx_state s)
{
	t->state = s;
	t->changed = tos_now_ms(t->c->x);
	for (struct member *m = t->members; m; m = m->next) {
		m->again_at = 0;
		m->pause_ms = 0;
	}
	tick_soon(t->c);
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

struct tos_value *tx_map(const struct tx *t, enum tx_state as)
{
	struct tos_value *v = tos_map(), *members = tos_array();

	for (const struct member *m = t->members; m; m = m->next)
		tos_push(members, member_map(m));
	tos_set(v, "tx", tos_text(t->id));
	tos_set(v, "state", tos_text(tx_word(as)));
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

void answer_prepare(struct tx *t)
{
	ok(t->c->x, take(&t->prepare_token), tx_map(t, t->state));
}

void answer_commit(struct tx *t)
{
	if (t->state == T_COMMITTED)
		ok(t->c->x, take(&t->commit_token), tx_map(t, t->state));
	else
		no(t->c->x, take(&t->commit_token), TOS_ERR_ABORTED,
			t->text[0] ? t->text : "the transaction was aborted");
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
		tx_turn(t, T_ABORTED);
		return;
	}
	tx_turn(t, T_OPEN);
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
	tx_turn(t, T_BEGINNING);
	if (tx_put(t, T_OPEN, keep_until(c->x) + most, on_begun) < 0) {
		no(c->x, take(&t->begin_token), TOS_ERR_FULL,
			"the journal takes nothing just now");
		tx_turn(t, T_ABORTED);
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

/* Its decision is known, and those that have not heard of it are tried again much later. */
static bool resting(const struct tx *t, int64_t now)
{
	bool yes = t->state == T_COMMITTED && !t->busy && !t->commit_token && !t->writing;

	for (const struct member *m = t->members; m && yes; m = m->next)
		yes = (m->told && m->kept) || m->again_at > now + TICK_SLOW_MS;
	return yes;
}

bool tx_tick(struct commit *c, int64_t now, bool *soon)
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
		if (!over(t) || t->busy || t->commit_token) {
			more = true;
			*soon |= !resting(t, now);
		}
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
