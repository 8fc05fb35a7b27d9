/*
 * A departure in doubt that is settled by the home's word (doc/protocol.md, "Hand-off"): the home is
 * asked, the ask journaled first; what it grants is journaled before the copy goes on. What a
 * destination answers is in depart.c.
 */
#include "kernel/handoff/departure.h"
#include "kernel/handoff/evidence.h"
#include "kernel/handoff/forced.h"
#include "kernel/handoff/handoff.h"
#include "kernel/carrier/family.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/vms.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/report.h"

#define ASK_MOST_MS 60000 /* between two questions that the home does not settle */

struct resolving {
	struct departure *departure;
	struct request *rq; /* NULL: nobody waits */
	bool forced;        /* without the home */
};

static void resolving_free(struct resolving *rs)
{
	free(rs->departure);
	free(rs);
}

static void resolving_fail(struct resolving *rs, int rc, const char *text)
{
	if (rs->rq)
		request_fail(STEAL(rs->rq), rc, "%s", text);
	resolving_free(rs);
}

static void resolving_done(struct resolving *rs, const char *state)
{
	struct tos_value *out;

	if (rs->rq) {
		out = tos_map();
		tos_set(out, "name", tos_text(rs->departure->name));
		tos_set(out, "state", tos_text(state));
		request_ok(STEAL(rs->rq), out);
	}
	resolving_free(rs);
}

struct grant_taken {
	struct kernel *k;
	struct resolving *rs;
	struct incarnation before;
};

/* The home's grant is durable here: the copy goes on. If it is not, the home is asked anew and
 * says the same. */
static void grant_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct grant_taken *g = arg;
	struct kernel *k = g->k;
	struct resident *r = resident_find(k, g->rs->departure->name);

	FAULT_AT(GRANT_KEPT);
	if (!r || r->n != g->rs->departure->n || r->state != SHELL_READY) {
		resolving_done(g->rs, r ? shell_state_word(r->state) : "gone");
		return;
	}
	if (rc < 0) {
		r->state = SHELL_DEPARTING;
		r->e = g->before;
		r->in_doubt = r->sent = r->asking = true;
		r->ask_at_ms = clock_ms() + k->config.retry_ms;
		resident_want_link(r, true);
		resolving_fail(g->rs, rc, err_show(rc, em));
		return;
	}
	incarnation_learn(k, r->id, &r->e, r->ticket.expires_ms);
	log_notice("doubt resolved: the carrier goes on here", KV_STR("carrier", r->name),
		KV_STR("dest", r->dest));
	resident_go_on(r);
	home_report(r);
	handoff_void_due(k, r->dest);
	resolving_done(g->rs, shell_state_word(r->state));
}

static void grant_take(struct resident *r, struct resolving *rs, const struct incarnation *e)
{
	struct kernel *k = r->k;
	struct grant_taken *g = mem_new(struct grant_taken);
	struct store_txn *t = store_begin(k->store);
	AUTOBUF key = BUF_INIT;
	int rc;

	g->k = k;
	g->rs = rs;
	g->before = r->e;
	resident_key(r, &key);
	void_put(t, &key, e, r->dest, r->ticket.expires_ms + KEEP_AFTER_MS);
	r->e = *e;
	clone_renumber(r);
	r->in_doubt = r->sent = r->asking = false;
	resident_want_link(r, false);
	resident_trail(r, "resolved", r->dest, rs->forced ? "forced" : "declared dead");
	move_cancel(r);
	r->resending = false;
	vm_abandon(r);
	r->via_go = false;
	r->go_seq = 0;
	resident_event(r, SHELL_EV_RETURNED, NULL);
	resident_uncollect(r);
	resident_put(t, r);
	FAULT_AT(GRANT_KEPT_COMMIT);
	rc = store_commit(t, grant_saved, g);
	if (rc < 0) {
		struct errmsg em = { "" };

		grant_saved(g, rc, &em);
	}
}

void resolve_forced(struct resident *r, struct request *rq, const struct incarnation *e)
{
	struct resolving *rs = mem_new(struct resolving);

	rs->departure = departure_new(r);
	rs->rq = rq;
	rs->forced = true;
	grant_take(r, rs, e);
}

/* Is that the home's own word, and not the lack of it? */
static bool home_declines(int rc)
{
	return rc == ERR_IN_DOUBT || rc == ERR_DENIED || rc == ERR_NOT_FOUND ||
	       rc == ERR_UNKNOWN || rc == ERR_MALFORMED;
}

static void on_asked(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct resolving *rs = arg;
	struct resident *r = departing(k, rs->departure);
	const struct tos_value *m = tos_at(elements, 0);
	const char *word = tos_get_text(m, "answer", "");
	struct incarnation e;
	struct store_txn *t;

	if (!r) {
		resolving_fail(rs, ERR_STATE, "it is not in doubt any more");
		return;
	}
	r->ask_sent = false;
	if (rc == 0 && strcmp(word, "granted") == 0 &&
		incarnation_read(tos_get(m, "e"), &e) == 0 &&
		incarnation_compare(&e, &r->e) > 0) {
		FAULT_AT(GRANT_TAKEN);
		grant_take(r, rs, &e);
		return;
	}
	if (rc == 0 && strcmp(word, "elsewhere") == 0) {
		r->asking = false;
		move_accepted(r);
		resolving_done(rs, "gone");
		return;
	}
	if (home_declines(rc)) {
		/* The destination's answer counts again: it is asked once more. */
		r->asking = false;
		t = store_begin(k->store);
		resident_put(t, r);
		store_commit(t, NULL, NULL);
		r->resend_at_ms = clock_ms();
	}
	r->ask_pause_ms = pause_longer(r->ask_pause_ms, k->config.retry_ms, ASK_MOST_MS);
	r->ask_at_ms = clock_ms() + r->ask_pause_ms;
	resolving_fail(rs, rc < 0 ? rc : ERR_MALFORMED, text);
}

void resolve_ask(struct resident *r, struct request *rq)
{
	struct resolving *rs = mem_new(struct resolving);
	struct tos_value *args = tos_map();

	rs->departure = departure_new(r);
	rs->rq = rq;
	r->ask_sent = true;
	tos_set(args, "name", tos_text(r->name));
	tos_set(args, "id", tos_bytes(r->id, DIGEST_BYTES));
	tos_set(args, "e", incarnation_value(&r->e));
	tos_set(args, "n", tos_int((int64_t)r->n - 1));
	tos_set(args, "dest", tos_text(r->dest));
	home_evidence(r, args);
	evidence_chain_all(r, args);
	kernel_call(
		r->k, r->ticket.home, "Home", "ASK", args, r->k->config.call_ms, on_asked, rs);
}

struct ask_journal {
	struct kernel *k;
	struct departure *departure;
	struct request *rq;
};

static void ask_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct ask_journal *j = arg;
	AUTOFREE struct departure *d = j->departure;
	struct resident *r = departing(j->k, d);

	FAULT_AT(ASK_JOURNALED);
	if (r && rc < 0) {
		r->asking = r->ask_sent = false;
		r = NULL;
	}
	if (r)
		resolve_ask(r, j->rq);
	else if (j->rq)
		request_fail(j->rq, rc < 0 ? rc : ERR_STATE, "%s",
			rc < 0 ? err_show(rc, em) : "it is not in doubt any more");
}

void resolve_begin(struct resident *r, struct request *rq)
{
	struct ask_journal *j;
	struct store_txn *t;
	int rc;

	if (r->state != SHELL_DEPARTING || !r->in_doubt || r->outcome_move || r->asking) {
		if (rq)
			request_fail(rq, ERR_STATE, "%s is %s%s", r->name,
				shell_state_word(r->state),
				r->asking         ? ": its home is being asked"
				: r->outcome_move ? ": only its home can take its outcome"
						  : ", not in doubt");
		return;
	}
	j = mem_new(struct ask_journal);
	j->k = r->k;
	j->departure = departure_new(r);
	j->rq = rq;
	r->asking = r->ask_sent = true;
	t = store_begin(r->k->store);
	resident_put(t, r);
	FAULT_AT(ASK_COMMIT);
	rc = store_commit(t, ask_saved, j);
	if (rc < 0) {
		struct errmsg em = { "" };

		ask_saved(j, rc, &em);
	}
}
