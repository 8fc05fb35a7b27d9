/*
 * How it ends: the coordinator decides, or is asked, or an operator decides instead. A decision is in
 * the journal before it is said to be kept. Of one that its coordinator keeps the carrier is told at
 * once, and the journal has it when the carrier has acted: after a crash in between the coordinator is
 * asked again.
 */
#include "participant.h"

#define KEEP_MS 500 /* a carrier that has not acted by then: the decision is journaled alone */

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

	part_turn(p, p->commit ? P_COMMITTED : P_ABORTED);
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

void part_decision_write(struct part *p)
{
	p->writing = part_put(p, p->commit ? P_COMMITTED : P_ABORTED, 0, on_kept) == 0;
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
		part_abort(p, why);
		ok(p->c->x, take(&p->decide_token), NULL);
		part_step(p, tos_now_ms(p->c->x));
	} else if (later && p->state == P_PREPARED) {
		decided(p);
	} else {
		part_turn(p, P_DECIDING);
		part_decision_write(p);
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
	if (part_put(p, p->state, p->done ? keep_until(p->c->x) : 0, on_kept) == 0)
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
	} else if (part_final(p) && (later || p->kept || !p->durable)) {
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
	part_longer(p, (uint32_t)setting(x, "ask/ms"));
	p->ask_at = tos_now_ms(x) + p->pause_ms;
	if (rc < 0 || p->state != P_PREPARED)
		return;
	if (strcmp(state, "committed") == 0)
		decide(p, true, NULL, true);
	else if (strcmp(state, "aborted") == 0)
		decide(p, false, tos_get_text(v, "text", "the coordinator has aborted it"),
			true);
}

void part_outcome_ask(struct part *p)
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
