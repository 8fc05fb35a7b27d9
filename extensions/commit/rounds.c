/*
 * The two rounds of a transaction: the votes, and the decision, which is in the journal before it is
 * told, and is told again until every participant's kernel has it on its disk.
 */
#include "coordinator.h"

#define DONE_MS 1000 /* who has not said that it has acted is asked */

/* ---- aborting and committing */

void abort_tx(struct tx *t, const char *why)
{
	if (!t->text[0])
		snprintf(t->text, sizeof(t->text), "%s", why);
	tx_turn(t, T_ABORTED);
	tos_count(t->c->x, "aborted_total", 1);
	answer_prepare(t);
	answer_commit(t);
	/* Nobody waits for this: what is not there was aborted. */
	tx_note(t, T_ABORTED);
	members_step(t, tos_now_ms(t->c->x));
}

void settle(struct tx *t)
{
	bool all = true, kept = true, done = true;

	for (const struct member *m = t->members; m; m = m->next) {
		all = all && m->told;
		kept = kept && m->kept;
		done = done && (m->done || m->lost);
	}
	if (kept && !t->settled) {
		t->settled = true;
		tx_note(t, T_COMMITTED);
	}
	if (all && (done || !t->wait_done))
		answer_commit(t);
}

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
	tx_turn(t, T_COMMITTED);
	tos_count(x, "committed_total", 1);
	members_step(t, tos_now_ms(x));
	settle(t); /* there may be no member */
}

void commit_write(struct tx *t)
{
	t->writing = tx_put(t, T_COMMITTED, 0, on_committed) == 0;
	t->write_at = tos_now_ms(t->c->x) + AGAIN_MS;
}

void commit_tx(struct tx *t)
{
	tx_turn(t, T_DECIDING);
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
		tx_turn(t, T_READY);
		answer_prepare(t);
		if (t->commit_wanted)
			commit_tx(t);
	}
}

/* ---- to the participants' kernels */

static void member_again(struct member *m)
{
	int64_t now = tos_now_ms(m->t->c->x);
	/* Whoever is away for a minute may be away for long; when it is back it asks by itself. */
	uint32_t most = now - m->t->changed > TELL_MS ? AGAIN_LONG_MS : AGAIN_MOST_MS;

	m->pause_ms = m->pause_ms ? 2 * m->pause_ms : AGAIN_MS;
	if (m->pause_ms > most)
		m->pause_ms = most;
	m->again_at = now + m->pause_ms;
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

void members_step(struct tx *t, int64_t now)
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
void go_on(struct tx *t)
{
	if (t->state != T_OPEN || !t->poll_wanted || (int64_t)t->n_members < t->expect)
		return;
	if (t->phases == 1) {
		commit_tx(t);
		return;
	}
	tx_turn(t, T_ASKING);
	if (!t->members)
		voted(t);
	else
		members_step(t, tos_now_ms(t->c->x));
}

/* ---- ENDED */

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
