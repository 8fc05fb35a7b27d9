/*
 * Inbox Home, and time: what this kernel answers for of the carriers launched here. A record is in
 * records.c and saving.c; what changes it is in reports.c, claims.c, grant.c, holds.c, commands.c
 * and outcome.c.
 */
#include "kernel/home/home.h"

#include <string.h>

#include "base/clock.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/report.h"
#include "kernel/home/claims.h"
#include "kernel/home/commands.h"
#include "kernel/home/families.h"
#include "kernel/home/grant.h"
#include "kernel/home/holds.h"
#include "kernel/home/records.h"
#include "kernel/home/reports.h"
#include "kernel/home/waiters.h"

#define REPORTS_AGAIN_MS 10000
#define WATCHED_AFTER_MS 30000
#define OVER_EACH_MS     60000

static void where_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = home_find(k, tos_get_text(rq->args, "name", ""));
	struct tos_value *out;

	if (!h) {
		request_fail(rq, ERR_NOT_FOUND, "%s never launched %s", k->config.name,
			tos_get_text(rq->args, "name", "?"));
		return;
	}
	if (shell_ended(h->state)) {
		request_fail(rq, ERR_NOT_FOUND, "%s has ended (%s)", h->name,
			shell_state_word(h->state));
		return;
	}
	out = tos_map();
	tos_set(out, "kernel", tos_text(h->kernel));
	tos_set(out, "owner", tos_text(h->owner));
	tos_set(out, "state", tos_text(shell_state_word(h->state)));
	tos_set(out, "ticket", tos_bytes(h->ticket_cose.p, h->ticket_cose.n));
	request_ok(rq, out);
}

/* A kernel that was sent the carrier asks before it accepts it. Nothing changes by that. */
static void confirm_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = claim_record(k, rq);
	enum evidence found;
	struct incarnation e;

	if (!h) {
		claim_unknown(k, rq);
		return;
	}
	if (incarnation_read(tos_get(rq->args, "e"), &e) < 0) {
		request_fail(rq, ERR_MALFORMED, "CONFIRM lacks e");
	} else if (shell_ended(h->state)) {
		request_fail(rq, ERR_SUPERSEDED, "%s has ended (%s)", h->name,
			shell_state_word(h->state));
	} else if (incarnation_compare(&e, &h->e) != 0) {
		request_fail(rq, ERR_SUPERSEDED, "the incarnation of %s is another", h->name);
	} else if (found = claim_judge(k, h, rq, &e),
		found == EVIDENCE_GOOD || found == EVIDENCE_GAP) {
		request_ok(rq,
			NULL); /* a gap: more records than fit; its reports will show them */
	} else {
		if (found == EVIDENCE_FORK)
			evidence_forked(k, h, claim_from(k, rq), rq->args);
		request_fail(
			rq, ERR_REPLAY, "its home knows %s to be at %s", h->name, h->kernel);
	}
}

void home_link_up(struct kernel *k, const char *peer)
{
	struct home_record *h;
	struct resident *r;
	size_t it = 0;

	declaration_lift(k, peer);
	reports_send(k, peer);
	while ((r = map_next(k->residents, &it, NULL, NULL)))
		if (strcmp(r->ticket.home, peer) == 0 && !r->reporting) {
			r->report_due = true;
			r->report_at_ms = r->report_pause_ms = 0;
			r->ask_at_ms = r->ask_pause_ms = 0;
		}
	it = 0;
	homes_all(k);
	while ((h = map_next(k->homes, &it, NULL, NULL))) {
		if (!shell_ended(h->state) && strcmp(h->from, peer) == 0)
			holds_settle(k, h);
		if (strcmp(h->kernel, peer) != 0 || shell_ended(h->state))
			continue;
		h->command_at_ms = h->command_pause_ms = 0;
		holds_ask(k, h, peer, "");
	}
}

/* Those that have ended: forgotten in the end, or at least not looked at each time. */
static void home_over(struct home_record *h, int64_t wall)
{
	struct kernel *k = h->k;

	/* Lines that were on their way when it ended may come a little later. */
	if (wall - h->ended_ms <= WATCHED_AFTER_MS || !list_empty(&h->waiters))
		return;
	if (map_size(k->watchers))
		watch_end(k, h->name);
	if (wall - h->ended_ms > IN_MEMORY_MS) {
		map_del_str(k->homes, h->name);
		home_free(h);
	} else if (!h->over && !h->save_due && !h->place_due && !home_busy(h)) {
		h->over = true;
		list_del(&h->ticked);
		list_add(&k->homes_over, &h->ticked);
	}
}

/* Tens of thousands may have ended within the hour. */
static void over_tick(struct kernel *k, int64_t now_ms)
{
	struct list *pos, *tmp;
	int64_t wall = clock_wall_ms();

	if (now_ms < k->homes_over_at_ms)
		return;
	k->homes_over_at_ms = now_ms + OVER_EACH_MS;
	LIST_EACH_SAFE(pos, tmp, &k->homes_over)
	{
		home_over(LIST_ITEM(pos, struct home_record, ticked), wall);
	}
}

void homes_tick(struct kernel *k, int64_t now_ms)
{
	struct list *pos, *tmp;
	int64_t wall = clock_wall_ms();

	if (now_ms >= k->notes_at_ms) {
		k->notes_at_ms = now_ms + REPORTS_AGAIN_MS;
		reports_send(k, NULL);
	}
	homes_all(k);
	over_tick(k, now_ms);
	LIST_EACH_SAFE(pos, tmp, &k->homes_open)
	{
		struct home_record *h = LIST_ITEM(pos, struct home_record, ticked);

		if (h->command_due && !shell_ended(h->state) && !h->closing &&
			now_ms >= h->command_at_ms) {
			/* may end a carrier; no record goes from this table */
			command_send(k, h);
		}
		if (h->holds_at_ms && !shell_ended(h->state) && now_ms >= h->holds_at_ms) {
			h->holds_at_ms = 0;
			if (h->denied || home_is_declared(k, h->kernel))
				holds_settle(k, h);
			else
				holds_ask(k, h, h->kernel, "");
		}
		if (h->place_due && !h->save_due && !home_busy(h) && now_ms >= h->place_at_ms)
			home_save(k, h);
		if (h->save_due && !home_busy(h) && now_ms >= h->save_at_ms) {
			h->save_at_ms = now_ms + COMMAND_AGAIN_MS;
			home_save(k, h);
		}
		waiters_tick(h, now_ms);
		if (shell_ended(h->state))
			home_over(h, wall);
	}
	families_tick(k, now_ms);
}

const struct verb home_verbs[] = {
	{ "ARRIVED", arrived_verb },
	{ "GONE", gone_verb },
	{ "ENDED", ended_verb },
	{ "WHERE", where_verb },
	{ "OWNER", owner_verb },
	{ "ASK", ask_verb },
	{ "CONFIRM", confirm_verb },
	{ "EVENT", event_verb },
	{ "CLONED", cloned_verb },
	{ NULL, NULL },
};
