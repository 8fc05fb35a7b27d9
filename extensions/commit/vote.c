/*
 * The vote of a carrier: its coordinator asks for it, the carrier is told (acting.c), its yes is
 * journaled before it is answered. A no, or none in time, aborts its part.
 */
#include "participant.h"

#define DOUBT_GRACE 500 /* ms after the deadline; then the coordinator is asked */

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

void part_abort(struct part *p, const char *why)
{
	if (!p->text[0] && why)
		snprintf(p->text, sizeof(p->text), "%s", why);
	p->commit = false;
	part_turn(p, P_ABORTED);
	no(p->c->x, take(&p->vote_token), TOS_ERR_ABORTED, p->text);
	poll_answer(p, false);
}

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
			part_turn(p, P_ASKED);
		part_step(p, tos_now_ms(c->x));
	}
}

static void voted_yes(struct part *p)
{
	part_turn(p, P_PREPARED);
	p->ask_at = p->deadline + DOUBT_GRACE;
	ok(p->c->x, take(&p->vote_token), part_map(p));
	poll_answer(p, true);
}

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
		part_abort(p, why);
		return;
	}
	voted_yes(p);
}

void part_vote_write(struct part *p)
{
	p->writing = part_put(p, P_PREPARED, 0, on_voted) == 0;
	p->write_at = tos_now_ms(p->c->x) + AGAIN_MS;
}

/* A vote when there is no choice left. */
static void vote_late(struct part *p, uint64_t token, bool yes, const struct tos_value *plan)
{
	struct tos_ext *x = p->c->x;
	bool same = yes && (p->plan ? tos_equal(p->plan, plan) : tos_type(plan) == TOS_NIL);

	if ((p->state == P_PREPARED && same) || (p->state == P_ABORTED && p->refused && !yes))
		ok(x, token, part_map(p));
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
		part_abort(p, "its vote came too late");
		no(p->c->x, token, TOS_ERR_ABORTED, p->text);
		return;
	}
	tos_value_free(p->plan);
	p->plan = plan && tos_type(plan) != TOS_NIL ? tos_value_copy(plan) : NULL;
	p->vote_token = token;
	if (p->dry) { /* it will be aborted: nothing needs to be kept */
		voted_yes(p);
		return;
	}
	part_turn(p, P_VOTING);
	part_vote_write(p);
}

static void vote_no(struct part *p, uint64_t token, const char *text)
{
	snprintf(p->text, sizeof(p->text), "%s", text);
	p->refused = true;
	part_abort(p, NULL);
	ok(p->c->x, token, part_map(p));
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
	if (!part_era_ok(p, a))
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
void part_vote_answered(struct part *p, const struct tos_value *v)
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
