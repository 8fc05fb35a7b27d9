/*
 * The carrier is told what to do, again after each crash, until it says DONE; then its coordinator
 * hears of that, too.
 */
#include "participant.h"

#define LAZY_MS 10 /* a record that nobody waits for shares the disk with others */

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
		part_longer(p, AGAIN_MS);
	p->tell_at = tos_now_ms(x) + p->pause_ms;
	tick_soon(p->c);
	if (rc == 0)
		part_vote_answered(p, tos_at(elements, 0));
}

void part_tell(struct part *p)
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
		part_end_say(p);
}

static void done_write(struct part *p)
{
	if (part_put(p, p->state, keep_until(p->c->x), on_done) == 0) {
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
	if (!part_era_ok(p, a))
		return;
	if (!part_final(p) || value_bytes(result) > PLAN_MAX) {
		no(c->x, a->m->token, part_final(p) ? TOS_ERR_TOO_LARGE : TOS_ERR_STATE,
			part_final(p) ? "a result is at most 16 KiB"
				      : "nothing is decided yet");
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

void part_end_say(struct part *p)
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
