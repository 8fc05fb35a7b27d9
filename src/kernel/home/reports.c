/*
 * What the places of a carrier report to its home: ARRIVED, GONE, ENDED, EVENT. What they are
 * believed is in claims.c; what residents say to their homes is in handoff/report.c.
 */
#include "kernel/home/reports.h"

#include <string.h>

#include "base/fault.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/restored.h"
#include "kernel/home/claims.h"
#include "kernel/home/holds.h"
#include "kernel/home/home.h"
#include "kernel/home/outcome.h"
#include "kernel/home/records.h"
#include "kernel/home/waiters.h"
#include "wire/record.h"

/* What the evidence of a report tells: who handed it to this place, if that is news. That
 * kernel may still hold its copy; its own report (GONE) says when it does not. */
static void from_note(struct home_record *h, const struct request *rq)
{
	struct hop hop = { .parts = NULL };
	struct slice bytes;

	bytes.p = tos_get_bytes(rq->args, "hop", &bytes.n);
	if (record_hop(bytes, &hop, NULL) == 0 && hop.n + 1 > h->n)
		snprintf(h->from, sizeof(h->from), "%s", hop.from);
	hop_fini(&hop);
}

/* How it came there from the place that is known here: the reporter is to show that. */
static void chain_want(const struct home_record *h, struct tos_value *out)
{
	struct tos_value *m = tos_map();

	tos_set(m, "kernel", tos_text(h->kernel));
	tos_set(m, "n", tos_int((int64_t)h->came));
	tos_set(out, "show", m);
}

/* A copy that nothing leads to from the place that the home knows, or that this place has passed
 * since: its holder ends it, if it is still the one it reported. */
static bool copy_is_void(struct kernel *k, const struct home_record *h,
	const struct request *rq, enum evidence found, uint64_t n)
{
	if (strcmp(h->kernel, claim_from(k, rq)) == 0 || !rq->from.kernel[0])
		return false;
	/* Late news of an earlier stay is no fork; a departure that nobody there made is. */
	if (found == EVIDENCE_FORK || (found == EVIDENCE_PASSED && n >= h->n))
		evidence_forked(k, h, claim_from(k, rq), rq->args);
	return found == EVIDENCE_FORK || found == EVIDENCE_PASSED || n < h->came;
}

/* A report, as far as it is read. */
struct arrived {
	struct home_record *h;
	struct incarnation e;
	uint64_t n;
	int state;  /* enum shell_state, or < 0 */
	bool doubt; /* whoever has it for sure is right against one who does not know */
};

/* Only the home raises an incarnation. A place that was handed such a copy ends it; anybody else is just
 * denied. */
static void arrived_raised(struct kernel *k, const struct arrived *r, struct request *rq)
{
	struct incarnation e;
	bool handed = strcmp(r->h->kernel, claim_from(k, rq)) != 0 &&
		      incarnation_read(tos_get(rq->args, "e"), &e) == 0 &&
		      evidence_handed(k, r->h, claim_from(k, rq), rq->args, &e);

	request_fail(rq, handed ? ERR_SUPERSEDED : ERR_DENIED,
		"only the home raises an incarnation");
}

/* The carrier is where the report comes from, with evidence. */
static void arrived_take(struct kernel *k, const struct arrived *r, struct request *rq)
{
	struct home_record *h = r->h;
	bool here = strcmp(h->kernel, claim_from(k, rq)) == 0;
	/* What has only begun to run is said again after a restart: it need not be on disk. */
	bool begun = r->n == h->n && h->state == SHELL_READY && r->state == SHELL_RUNNING &&
		     !h->in_doubt && !h->wanted[0] && here;

	from_note(h, rq);
	holds_heard(h);
	if (!here)
		home_place(h, claim_from(k, rq), r->n);
	h->n = r->n;
	place_note(k, h->name, h->kernel);
	h->in_doubt = r->doubt;
	if (strcmp(h->wanted, "retry") == 0)
		h->wanted[0] = 0; /* it has been done: this is the raised incarnation */
	if (r->state == SHELL_FAULTED && tos_get(rq->args, "fault")) {
		home_fault(h, rq->args);
	} else if (r->state != SHELL_FAULTED) {
		tos_value_free(h->fault);
		h->fault = NULL;
	}
	home_state(k, h, (enum shell_state)r->state);
	if (h->fault || r->doubt)
		home_save(k, h);
	else if (!begun)
		home_save_soon(h);
	waiters_tell(h);
}

/* Takes what can be taken of it. false: that is all there is to say, and out has it. */
static bool arrived_judge(
	struct kernel *k, struct arrived *r, struct request *rq, struct tos_value *out)
{
	struct home_record *h = r->h;
	enum evidence found;

	if (incarnation_read(tos_get(rq->args, "e"), &r->e) < 0 || r->state < 0 ||
		(int64_t)r->n < 0 || shell_ended((enum shell_state)r->state) ||
		incarnation_compare(&r->e, &h->e) != 0)
		return true; /* nothing that could be taken; the answer says what is wanted */
	found = claim_judge(k, h, rq, &r->e);
	if (found == EVIDENCE_NONE) {
		claim_ignored(k, h, rq);
		return false;
	}
	if (r->state != SHELL_DEPARTING && copy_is_void(k, h, rq, found, r->n)) {
		tos_set(out, "void", tos_int((int64_t)r->n));
		return false;
	}
	if (r->n < h->n ||
		(r->doubt && r->n == h->n && strcmp(h->kernel, claim_from(k, rq)) != 0))
		return true;
	if (found != EVIDENCE_GOOD) {
		chain_want(h, out);
		return false;
	}
	arrived_take(k, r, rq);
	return true;
}

/* What the place is to do with it. A retry may be answered before its place has it on disk: it is told
 * again for as long as that place reports the incarnation from before. */
static void wanted_say(struct kernel *k, const struct home_record *h, const struct request *rq,
	struct tos_value *out)
{
	if (strcmp(h->wanted, "killed") == 0 || strcmp(h->wanted, "suspended") == 0 ||
		(strcmp(h->wanted, "retry") == 0 && strcmp(h->kernel, claim_from(k, rq)) == 0))
		tos_set(out, "wanted", tos_text(h->wanted));
}

void arrived_verb(struct kernel *k, struct request *rq)
{
	struct arrived r = { .h = claim_record(k, rq),
		.n = (uint64_t)tos_get_int(rq->args, "n", 0),
		.state = shell_state_parse(tos_get_text(rq->args, "state", "")),
		.doubt = tos_get_bool(rq->args, "in_doubt", false) };
	struct tos_value *out;

	FAULT_AT(REPORT_TAKEN);
	restored_see(k, rq->from.kernel, rq->args);
	if (!r.h) {
		claim_unknown(k, rq);
		return;
	}
	if (claim_busy(r.h, rq))
		return;
	/* A departing copy is that of the departure before the next: where that was accepted, the
	 * destination's is the later one. */
	if (r.state == SHELL_DEPARTING && r.n > 0)
		r.n--;
	if (claim_raised(k, r.h, rq)) {
		arrived_raised(k, &r, rq);
		return;
	}
	out = tos_map();
	tos_set(out, "e", incarnation_value(&r.h->e));
	tos_set(out, "n", tos_int((int64_t)r.h->n));
	restored_stamp(k, out);
	if (shell_ended(r.h->state)) {
		/* After a final outcome every copy reported is to be killed. */
		tos_set(out, "wanted", tos_text("killed"));
		tos_set(out, "ended", tos_bool(true));
	} else if (arrived_judge(k, &r, rq, out)) {
		wanted_say(k, r.h, rq, out);
		request_ok(rq, out);
		FAULT_AT(REPORT_ANSWERED);
		return;
	}
	request_ok(rq, out);
}

void gone_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = claim_record(k, rq);
	struct incarnation e;
	uint64_t n = (uint64_t)tos_get_int(rq->args, "n", 0);

	restored_see(k, rq->from.kernel, rq->args);
	if (!h) {
		claim_unknown(k, rq);
		return;
	}
	if (claim_busy(h, rq))
		return;
	FAULT_AT(GONE_TAKEN);
	/* Departure n was accepted there: the copy there carries n + 1. */
	if (!shell_ended(h->state) && incarnation_read(tos_get(rq->args, "e"), &e) == 0 &&
		incarnation_compare(&e, &h->e) == 0 && (int64_t)n >= 0 &&
		(n + 1 > h->n ||
			(n + 1 == h->n && strcmp(h->kernel, claim_from(k, rq)) == 0)) &&
		name_kernel_ok(tos_get_text(rq->args, "dest", ""))) {
		enum evidence found = claim_judge(k, h, rq, &e);

		if (found == EVIDENCE_GAP) {
			claim_way_unknown(k, h, rq);
			return;
		}
		if (found != EVIDENCE_GOOD) {
			claim_ignored(k, h, rq);
			request_ok(rq, NULL);
			return;
		}
		h->n = n + 1;
		home_place(h, tos_get_text(rq->args, "dest", ""), n + 1);
		place_note(k, h->name, h->kernel);
		h->in_doubt = false;
		h->from[0] = 0;
		holds_heard(h);
		home_save_soon(h);
	} else if (!shell_ended(h->state) && n + 1 == h->n &&
		   strcmp(h->from, claim_from(k, rq)) == 0) {
		/* Its arrival was reported first: now nobody else has a copy. */
		h->from[0] = 0;
		home_save_soon(h);
	}
	request_ok(rq, NULL);
}

static void ended_saved(void *arg, int rc, const struct errmsg *em)
{
	struct request *rq = arg;

	FAULT_AT(ENDED_JOURNALED);
	if (rc < 0) {
		struct home_record *h =
			map_find_str(rq->k->homes, tos_get_text(rq->args, "name", ""));

		if (h)
			home_save_due(h);
		request_fail(rq, rc, "%s", err_show(rc, em));
	} else {
		request_ok(rq, NULL);
	}
}

void ended_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = claim_record(k, rq);
	int state = shell_state_parse(tos_get_text(rq->args, "state", ""));
	struct incarnation e;
	struct store_txn *t;
	struct tos_value *o, *fault;
	enum evidence found;
	int rc;

	if (!h) {
		claim_unknown(k, rq);
		return;
	}
	if (claim_raised(k, h, rq)) {
		request_fail(rq, ERR_DENIED, "only the home raises an incarnation");
		return;
	}
	if (claim_busy(h, rq))
		return;
	if (h->save_due) {
		/* The place keeps its note until our journal has caught up with memory. */
		request_fail(rq, ERR_STORE, "what is known of %s is not durable yet", h->name);
		return;
	}
	if (shell_ended(h->state) || (state != SHELL_KILLED && state != SHELL_LOST) ||
		incarnation_read(tos_get(rq->args, "e"), &e) < 0 ||
		incarnation_compare(&e, &h->e) < 0) {
		request_ok(rq, NULL);
		return;
	}
	found = claim_judge(k, h, rq, &e);
	if (found == EVIDENCE_GAP) {
		claim_way_unknown(k, h, rq);
		return;
	}
	if (found != EVIDENCE_GOOD) {
		claim_ignored(k, h, rq);
		request_ok(rq, NULL);
		return;
	}
	o = tos_map();
	if (tos_get(rq->args, "trail"))
		tos_set(o, "trail", tos_value_copy(tos_get(rq->args, "trail")));
	if (tos_get(rq->args, "log"))
		tos_set(o, "log", tos_value_copy(tos_get(rq->args, "log")));
	if (tos_get(rq->args, "clones"))
		tos_set(o, "clones", tos_value_copy(tos_get(rq->args, "clones")));
	fault = tos_map();
	tos_set(fault, "code", tos_text(shell_state_word((enum shell_state)state)));
	tos_set(fault, "text", tos_text(tos_get_text(rq->args, "why", "")));
	tos_set(fault, "kernel", tos_text(claim_from(k, rq)));
	tos_set(o, "fault", fault);
	home_outcome(k, h, (enum shell_state)state, o);
	t = store_begin(k->store);
	home_put(t, h);
	FAULT_AT(ENDED_COMMIT);
	rc = store_commit(t, ended_saved, rq);
	if (rc < 0)
		request_fail(rq, rc, "%s", err_text(rc));
}

/* Of those that the home remembers. */
static bool place_was(const struct home_record *h, const char *kernel)
{
	for (size_t i = 0; i < h->n_places && i < ARRAY_LEN(h->places); i++)
		if (strcmp(h->places[i], kernel) == 0)
			return true;
	return strcmp(h->kernel, kernel) == 0 || strcmp(h->from, kernel) == 0;
}

void event_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = home_known(k, tos_get_text(rq->args, "name", ""));
	const char *kind = tos_get_text(rq->args, "kind", "");

	/* A state event of the place itself; the record follows the reports, not these. And only
	 * who has the carrier, or had it, has something to tell. */
	if (h && !place_was(h, claim_from(k, rq)))
		metric_add(k->metrics, "home_reports_ignored_total", NULL, 1);
	else if (h && strcmp(kind, "state") != 0)
		watch_event(k, h->name, tos_value_copy(rq->args));
	request_ok(rq, NULL);
}
