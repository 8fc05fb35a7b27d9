/*
 * The home: what this kernel answers for of the carriers launched here: where they are, what is
 * wanted of them, how they ended. What residents say to their homes is in report.c.
 */
#include "kernel/handoff/evidence.h"
#include "kernel/home/family.h"
#include "kernel/home/records.h"
#include "kernel/handoff/forced.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "wire/record.h"

#define COMMAND_AGAIN_MS 1000
#define SAVE_SOON_MS     200
#define REPORTS_AGAIN_MS 10000
#define WATCHED_AFTER_MS 30000
#define DENIED_AGAIN_MS  5000 /* a place denies twice, at least this far apart */

static void holds_ask(
	struct kernel *k, struct home_record *h, const char *kernel, const char *dead);

struct outcome_waiter {
	struct list node;
	struct request *rq;
	int64_t until_ms;
};

/* ---- records */

/* Of those that the home remembers. */
static bool place_was(const struct home_record *h, const char *kernel)
{
	for (size_t i = 0; i < h->n_places && i < ARRAY_LEN(h->places); i++)
		if (strcmp(h->places[i], kernel) == 0)
			return true;
	return strcmp(h->kernel, kernel) == 0 || strcmp(h->from, kernel) == 0;
}

/* How many outcomes one client may wait for at a time. */
#define WAITERS_MAX 4096

static size_t *waiting_of(struct kernel *k, const char *client)
{
	size_t *n = map_find_str(k->waiting, client);

	if (!n) {
		n = mem_new(size_t);
		map_put_str(k->waiting, client, n);
	}
	return n;
}

/* Takes it off the list; the request is its caller's to answer. */
static struct request *waiter_end(struct outcome_waiter *w)
{
	struct request *rq = w->rq;
	size_t *n = waiting_of(rq->k, rq->from.name);

	if (*n <= 1)
		free(map_del_str(rq->k->waiting, rq->from.name));
	else
		--*n;
	list_del(&w->node);
	free(w);
	return rq;
}

static void waiters_fail(struct home_record *h, int rc, const char *text)
{
	while (!list_empty(&h->waiters)) {
		struct outcome_waiter *w =
			LIST_ITEM(h->waiters.next, struct outcome_waiter, node);

		request_fail(waiter_end(w), rc, "%s", text);
	}
}

void home_free(struct home_record *h)
{
	if (!h)
		return;
	waiters_fail(h, ERR_CLOSED, "the kernel stops");
	blob_free(&h->ticket_cose);
	tos_value_free(h->outcome);
	tos_value_free(h->end_outcome);
	tos_value_free(h->fault);
	free(h);
}

bool home_busy(const struct home_record *h)
{
	return h->raising || h->closing;
}

struct home_saving {
	struct kernel *k;
	char name[NAME_BYTES_MAX + 1];
};

static void home_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct home_saving *s = arg;
	struct home_record *h = rc < 0 ? map_find_str(s->k->homes, s->name) : NULL;

	(void)em;
	if (h)
		h->save_due = true; /* memory is ahead of the store: the tick tries again */
}

static void home_save(struct kernel *k, struct home_record *h)
{
	struct home_saving *s;
	struct store_txn *t;

	h->save_due = true;
	h->place_due = false;
	if (home_busy(h))
		return; /* once that has come out */
	s = mem_new(struct home_saving);
	s->k = k;
	snprintf(s->name, sizeof(s->name), "%s", h->name);
	t = store_begin(k->store);
	home_put(t, h);
	FAULT_AT(HOME_COMMIT);
	if (store_commit(t, home_saved, s) < 0)
		free(s);
	else
		h->save_due = false;
}

void home_save_due(struct home_record *h)
{
	h->save_due = true;
}

/* Where a carrier is now: the tick writes it, once for all that came meanwhile. Who forgets it in a
 * crash hears of it again, from the place or from the one before. */
static void home_save_soon(struct home_record *h)
{
	if (!h->place_due)
		h->place_at_ms = clock_ms() + SAVE_SOON_MS;
	h->place_due = true;
}

/* A higher incarnation counts when it is durable: until then reports are answered with the
 * present one, and if the journal fails nothing has happened. */
static void raise_begin(struct home_record *h)
{
	h->raising = true;
	h->next_e.count = h->e.count + 1;
	random_bytes(h->next_e.nonce, sizeof(h->next_e.nonce));
}

static void raise_end(struct kernel *k, struct home_record *h, int rc)
{
	if (!h->raising)
		return;
	h->raising = false;
	if (rc == 0) {
		h->e = h->next_e;
		incarnation_learn(k, h->id, &h->e, h->expires_ms);
	}
}

struct tos_value *outcome_of(struct resident *r)
{
	struct tos_value *m = tos_map(), *b = NULL;

	tos_decode(r->briefcase.p, r->briefcase.n, (size_t)512 << 20, &b);
	tos_set(m, "briefcase", b ? b : tos_map());
	tos_set(m, "trail", tos_value_copy(lines_all(&r->trail)));
	tos_set(m, "log", tos_value_copy(lines_all(&r->log)));
	tos_set(m, "fault", r->fault ? tos_value_copy(r->fault) : tos_nil());
	if (r->n_made)
		tos_set(m, "clones", tos_int((int64_t)r->n_made));
	return m;
}

/* ---- ends */

static struct tos_value *outcome_answer(const struct home_record *h)
{
	struct tos_value *m = h->outcome ? tos_value_copy(h->outcome) : tos_map();

	tos_set(m, "name", tos_text(h->name));
	tos_set(m, "state", tos_text(shell_state_word(h->state)));
	if (!tos_get(m, "briefcase"))
		tos_set(m, "briefcase", tos_map());
	if (!tos_get(m, "trail"))
		tos_set(m, "trail", tos_array());
	if (h->fault)
		tos_set(m, "fault", tos_value_copy(h->fault));
	else if (!tos_get(m, "fault"))
		tos_set(m, "fault", tos_nil());
	return m;
}

bool home_outcome_known(const struct home_record *h)
{
	return shell_ended(h->state) || h->state == SHELL_FAULTED;
}

static void waiters_tell(struct home_record *h)
{
	h->k->family_news |= home_outcome_known(h);
	while (home_outcome_known(h) && !list_empty(&h->waiters)) {
		struct outcome_waiter *w =
			LIST_ITEM(h->waiters.next, struct outcome_waiter, node);

		request_ok(waiter_end(w), outcome_answer(h));
	}
}

void home_wait(struct home_record *h, struct request *rq, uint32_t wait_ms)
{
	struct outcome_waiter *w;

	if (home_outcome_known(h)) {
		request_ok(rq, outcome_answer(h));
		return;
	}
	if (wait_ms == 0) {
		request_fail(rq, ERR_TIMEOUT, "%s is %s at %s", h->name,
			shell_state_word(h->state), h->kernel);
		return;
	}
	if (*waiting_of(rq->k, rq->from.name) >= WAITERS_MAX) {
		request_fail(rq, ERR_FULL, "%s waits for %d outcomes already", rq->from.name,
			WAITERS_MAX);
		return;
	}
	++*waiting_of(rq->k, rq->from.name);
	w = mem_new(struct outcome_waiter);
	w->rq = rq;
	w->until_ms = clock_ms() + wait_ms;
	list_add(&h->waiters, &w->node);
}

void home_waiters_drop(struct kernel *k, const char *client)
{
	struct home_record *h;
	size_t it = 0;

	if (!map_find_str(k->waiting, client))
		return;
	while ((h = map_next(k->homes, &it, NULL, NULL))) {
		struct list *pos, *tmp;

		LIST_EACH_SAFE(pos, tmp, &h->waiters)
		{
			struct outcome_waiter *w = LIST_ITEM(pos, struct outcome_waiter, node);

			if (strcmp(w->rq->from.name, client) == 0)
				request_free(waiter_end(w));
		}
	}
}

static void state_set(struct kernel *k, struct home_record *h, enum shell_state state)
{
	struct tos_value *ev;

	if (h->state == state)
		return;
	h->state = state;
	h->since_ms = clock_wall_ms();
	ev = tos_map();
	tos_set(ev, "name", tos_text(h->name));
	tos_set(ev, "kind", tos_text("state"));
	tos_set(ev, "state", tos_text(shell_state_word(state)));
	tos_set(ev, "kernel", tos_text(h->kernel));
	tos_set(ev, "wall", tos_int(h->since_ms));
	watch_event(k, h->name, ev);
}

void home_outcome(struct kernel *k, struct home_record *h, enum shell_state state,
	struct tos_value *outcome)
{
	if (outcome) {
		tos_value_free(h->outcome);
		h->outcome = outcome;
	}
	tos_value_free(h->fault);
	h->fault = NULL;
	h->in_doubt = h->command_due = false;
	h->ended_ms = clock_wall_ms();
	snprintf(h->kernel, sizeof(h->kernel), "%s", k->config.name);
	state_set(k, h, state);
	metric_add(k->metrics, "outcomes_total", NULL, 1);
	log_info("carrier ended", KV_STR("carrier", h->name),
		KV_STR("state", shell_state_word(state)));
	waiters_tell(h);
}

void home_close(struct home_record *h, enum shell_state state, struct tos_value *outcome)
{
	h->closing = true;
	h->end_state = state;
	h->end_outcome = outcome;
	h->end_ms = clock_wall_ms();
}

void home_end(struct kernel *k, struct home_record *h, int rc)
{
	struct tos_value *outcome = STEAL(h->end_outcome);

	h->closing = false;
	if (rc == 0 && !shell_ended(h->state)) {
		home_outcome(k, h, h->end_state, outcome);
		h->ended_ms = h->end_ms;
	} else {
		tos_value_free(outcome);
		h->save_due = true; /* another row may have said that it had ended */
	}
}

/* ---- inbox Home */

static struct home_record *home_args(struct kernel *k, const struct request *rq)
{
	struct home_record *h = home_find(k, tos_get_text(rq->args, "name", ""));
	size_t n;
	const uint8_t *id = tos_get_bytes(rq->args, "id", &n);

	if (!h && tos_get(rq->args, "birth") && family_take(k, rq->args, &h, NULL) < 0)
		h = NULL;
	return h && id && n == DIGEST_BYTES && memcmp(h->id, id, n) == 0 ? h : NULL;
}

/* Where home_args() found none. */
static void home_unknown(struct kernel *k, struct request *rq)
{
	struct home_record *h = NULL;
	struct errmsg em = { "" };
	int rc = tos_get(rq->args, "birth") ? family_take(k, rq->args, &h, &em) : ERR_NOT_FOUND;

	if (rc < 0 && rc != ERR_NOT_FOUND) {
		/* A clone that must not be is ended by whoever has it; one that is not known yet is
		 * reported again. */
		request_fail(rq,
			rc == ERR_STATE                    ? rc
			: strcmp(rq->verb, "ARRIVED") == 0 ? ERR_SUPERSEDED
							   : ERR_DENIED,
			"%s", err_show(rc, &em));
		return;
	}
	request_fail(rq, ERR_NOT_FOUND, "%s is not home of %s", k->config.name,
		tos_get_text(rq->args, "name", "?"));
}

static const char *who_asks(const struct kernel *k, const struct request *rq)
{
	return rq->from.kernel[0] ? rq->from.kernel : k->config.name;
}

/* It is told to come again. */
static bool busy_refused(const struct home_record *h, struct request *rq)
{
	if (!home_busy(h))
		return false;
	request_fail(rq, ERR_STATE, "%s of %s is being journaled",
		h->raising ? "a raise" : "the end", h->name);
	return true;
}

/* What the report shows about its sender; this kernel's own are believed. */
static enum evidence judge(struct kernel *k, const struct home_record *h,
	const struct request *rq, const struct incarnation *e)
{
	return rq->from.kernel[0] ? evidence_judge(k, h, who_asks(k, rq), rq->args, e)
				  : EVIDENCE_GOOD;
}

/* An honest kernel comes here when its carrier has been elsewhere since: nothing it says is
 * taken. */
static void report_ignored(
	struct kernel *k, const struct home_record *h, const struct request *rq)
{
	metric_add(k->metrics, "home_reports_ignored_total", NULL, 1);
	log_notice("a report was not taken: its sender does not hold the carrier",
		KV_STR("carrier", h->name), KV_STR("from", rq->from.kernel),
		KV_STR("verb", rq->verb));
}

static void take_fault(struct home_record *h, const struct tos_value *args)
{
	struct tos_value *o = tos_map();
	static const char *const parts[] = { "briefcase", "trail", "log", "fault", "clones" };

	tos_value_free(h->fault);
	h->fault = tos_value_copy(tos_get(args, "fault"));
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		if (tos_get(args, parts[i]))
			tos_set(o, parts[i], tos_value_copy(tos_get(args, parts[i])));
	tos_value_free(h->outcome);
	h->outcome = o;
}

/* An incarnation that this home never granted: a kernel that claims it would end the true copy. */
static bool raised_elsewhere(struct kernel *k, struct home_record *h, const struct request *rq)
{
	struct incarnation e;
	struct tos_value *m;
	struct slice act;

	/* A restored home may have forgotten what it granted. */
	if (shell_ended(h->state) || h->stale ||
		incarnation_read(tos_get(rq->args, "e"), &e) < 0 ||
		incarnation_compare(&e, &h->e) <= 0)
		return false;
	act.p = tos_get_bytes(rq->args, "forced", &act.n);
	if (act.p && forced_take(k, h, act, &e))
		return false;
	m = tos_map();
	tos_set(m, "carrier", tos_text(h->name));
	tos_set(m, "from", tos_text(who_asks(k, rq)));
	audit_refusal(k, NULL, rq->from.kernel, "report-refused", m);
	return true;
}

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

static void place_answers(struct home_record *h)
{
	h->denied_ms = h->holds_at_ms = 0;
	h->denied = false;
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
	if (strcmp(h->kernel, who_asks(k, rq)) == 0 || !rq->from.kernel[0])
		return false;
	/* Late news of an earlier stay is no fork; a departure that nobody there made is. */
	if (found == EVIDENCE_FORK || (found == EVIDENCE_PASSED && n >= h->n))
		evidence_forked(k, h, who_asks(k, rq), rq->args);
	return found == EVIDENCE_FORK || found == EVIDENCE_PASSED || n < h->came;
}

static void arrived_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = home_args(k, rq);
	struct tos_value *out;
	struct incarnation e;
	uint64_t n = (uint64_t)tos_get_int(rq->args, "n", 0);
	int state = shell_state_parse(tos_get_text(rq->args, "state", ""));
	/* Whoever has it for sure is right against one who does not know. */
	bool doubt = tos_get_bool(rq->args, "in_doubt", false);
	enum evidence found;

	FAULT_AT(REPORT_TAKEN);
	restored_see(k, rq->from.kernel, rq->args);
	if (!h) {
		home_unknown(k, rq);
		return;
	}
	if (busy_refused(h, rq))
		return;
	/* A departing copy is that of the departure before the next: where that was accepted, the
	 * destination's is the later one. */
	if (state == SHELL_DEPARTING && n > 0)
		n--;
	if (raised_elsewhere(k, h, rq)) {
		/* A place that was handed such a copy ends it; anybody else is just denied. */
		bool handed = strcmp(h->kernel, who_asks(k, rq)) != 0 &&
			      incarnation_read(tos_get(rq->args, "e"), &e) == 0 &&
			      evidence_handed(k, h, who_asks(k, rq), rq->args, &e);

		request_fail(rq, handed ? ERR_SUPERSEDED : ERR_DENIED,
			"only the home raises an incarnation");
		return;
	}
	out = tos_map();
	tos_set(out, "e", incarnation_value(&h->e));
	tos_set(out, "n", tos_int((int64_t)h->n));
	restored_stamp(k, out);
	if (shell_ended(h->state)) {
		/* After a final outcome every copy reported is to be killed. */
		tos_set(out, "wanted", tos_text("killed"));
		tos_set(out, "ended", tos_bool(true));
		request_ok(rq, out);
		return;
	}
	if (incarnation_read(tos_get(rq->args, "e"), &e) < 0 || state < 0 || (int64_t)n < 0 ||
		shell_ended((enum shell_state)state) || incarnation_compare(&e, &h->e) != 0) {
		/* nothing that could be taken; the answer says what is wanted */
	} else if (found = judge(k, h, rq, &e), found == EVIDENCE_NONE) {
		report_ignored(k, h, rq);
		request_ok(rq, out);
		return;
	} else if (state != SHELL_DEPARTING && copy_is_void(k, h, rq, found, n)) {
		tos_set(out, "void", tos_int((int64_t)n));
		request_ok(rq, out);
		return;
	} else if (n >= h->n &&
		   !(doubt && n == h->n && strcmp(h->kernel, who_asks(k, rq)) != 0)) {
		if (found != EVIDENCE_GOOD) {
			chain_want(h, out);
			request_ok(rq, out);
			return;
		}
		/* What has only begun to run is said again after a restart: it need not be on disk. */
		bool begun = n == h->n && h->state == SHELL_READY && state == SHELL_RUNNING &&
			     !h->in_doubt && !h->wanted[0] &&
			     strcmp(h->kernel, who_asks(k, rq)) == 0;

		from_note(h, rq);
		place_answers(h);
		if (strcmp(h->kernel, who_asks(k, rq)) != 0)
			home_place(h, who_asks(k, rq), n);
		h->n = n;
		place_note(k, h->name, h->kernel);
		h->in_doubt = doubt;
		if (strcmp(h->wanted, "retry") == 0)
			h->wanted[0] = 0; /* it has been done: this is the raised incarnation */
		if (state == SHELL_FAULTED && tos_get(rq->args, "fault"))
			take_fault(h, rq->args);
		else if (state != SHELL_FAULTED) {
			tos_value_free(h->fault);
			h->fault = NULL;
		}
		state_set(k, h, (enum shell_state)state);
		if (h->fault || doubt)
			home_save(k, h);
		else if (!begun)
			home_save_soon(h);
		waiters_tell(h);
	}
	/* A retry may be answered before its place has it on disk: it is told again for as long
	 * as that place reports the incarnation from before. */
	if (strcmp(h->wanted, "killed") == 0 || strcmp(h->wanted, "suspended") == 0 ||
		(strcmp(h->wanted, "retry") == 0 && strcmp(h->kernel, who_asks(k, rq)) == 0))
		tos_set(out, "wanted", tos_text(h->wanted));
	request_ok(rq, out);
	FAULT_AT(REPORT_ANSWERED);
}

/* It is said again; the places in between tell meanwhile, or are asked. */
static void way_unknown(struct kernel *k, struct home_record *h, struct request *rq)
{
	request_fail(rq, ERR_STATE, "how %s came to %s is not known here yet", h->name,
		rq->from.kernel);
	if (strcmp(h->kernel, k->config.name) != 0)
		holds_ask(k, h, h->kernel, "");
}

static void gone_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = home_args(k, rq);
	struct incarnation e;
	uint64_t n = (uint64_t)tos_get_int(rq->args, "n", 0);

	restored_see(k, rq->from.kernel, rq->args);
	if (!h) {
		home_unknown(k, rq);
		return;
	}
	if (busy_refused(h, rq))
		return;
	FAULT_AT(GONE_TAKEN);
	/* Departure n was accepted there: the copy there carries n + 1. */
	if (!shell_ended(h->state) && incarnation_read(tos_get(rq->args, "e"), &e) == 0 &&
		incarnation_compare(&e, &h->e) == 0 && (int64_t)n >= 0 &&
		(n + 1 > h->n || (n + 1 == h->n && strcmp(h->kernel, who_asks(k, rq)) == 0)) &&
		name_kernel_ok(tos_get_text(rq->args, "dest", ""))) {
		enum evidence found = judge(k, h, rq, &e);

		if (found == EVIDENCE_GAP) {
			way_unknown(k, h, rq);
			return;
		}
		if (found != EVIDENCE_GOOD) {
			report_ignored(k, h, rq);
			request_ok(rq, NULL);
			return;
		}
		h->n = n + 1;
		home_place(h, tos_get_text(rq->args, "dest", ""), n + 1);
		place_note(k, h->name, h->kernel);
		h->in_doubt = false;
		h->from[0] = 0;
		place_answers(h);
		home_save_soon(h);
	} else if (!shell_ended(h->state) && n + 1 == h->n &&
		   strcmp(h->from, who_asks(k, rq)) == 0) {
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
			h->save_due = true;
		request_fail(rq, rc, "%s", err_show(rc, em));
	} else {
		request_ok(rq, NULL);
	}
}

static void ended_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = home_args(k, rq);
	int state = shell_state_parse(tos_get_text(rq->args, "state", ""));
	struct incarnation e;
	struct store_txn *t;
	struct tos_value *o, *fault;
	enum evidence found;
	int rc;

	if (!h) {
		home_unknown(k, rq);
		return;
	}
	if (raised_elsewhere(k, h, rq)) {
		request_fail(rq, ERR_DENIED, "only the home raises an incarnation");
		return;
	}
	if (busy_refused(h, rq))
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
	found = judge(k, h, rq, &e);
	if (found == EVIDENCE_GAP) {
		way_unknown(k, h, rq);
		return;
	}
	if (found != EVIDENCE_GOOD) {
		report_ignored(k, h, rq);
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
	tos_set(fault, "kernel", tos_text(who_asks(k, rq)));
	tos_set(o, "fault", fault);
	home_outcome(k, h, (enum shell_state)state, o);
	t = store_begin(k->store);
	home_put(t, h);
	FAULT_AT(ENDED_COMMIT);
	rc = store_commit(t, ended_saved, rq);
	if (rc < 0)
		request_fail(rq, rc, "%s", err_text(rc));
}

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
	struct home_record *h = home_args(k, rq);
	enum evidence found;
	struct incarnation e;

	if (!h) {
		home_unknown(k, rq);
		return;
	}
	if (incarnation_read(tos_get(rq->args, "e"), &e) < 0) {
		request_fail(rq, ERR_MALFORMED, "CONFIRM lacks e");
	} else if (shell_ended(h->state)) {
		request_fail(rq, ERR_SUPERSEDED, "%s has ended (%s)", h->name,
			shell_state_word(h->state));
	} else if (incarnation_compare(&e, &h->e) != 0) {
		request_fail(rq, ERR_SUPERSEDED, "the incarnation of %s is another", h->name);
	} else if (found = judge(k, h, rq, &e),
		found == EVIDENCE_GOOD || found == EVIDENCE_GAP) {
		request_ok(rq,
			NULL); /* a gap: more records than fit; its reports will show them */
	} else {
		if (found == EVIDENCE_FORK)
			evidence_forked(k, h, who_asks(k, rq), rq->args);
		request_fail(
			rq, ERR_REPLAY, "its home knows %s to be at %s", h->name, h->kernel);
	}
}

static void event_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = map_find_str(k->homes, tos_get_text(rq->args, "name", ""));
	const char *kind = tos_get_text(rq->args, "kind", "");

	/* A state event of the place itself; the record follows the reports, not these. And only
	 * who has the carrier, or had it, has something to tell. */
	if (h && !place_was(h, who_asks(k, rq)))
		metric_add(k->metrics, "home_reports_ignored_total", NULL, 1);
	else if (h && strcmp(kind, "state") != 0)
		watch_event(k, h->name, tos_value_copy(rq->args));
	request_ok(rq, NULL);
}

/* ---- the grant: who goes on when a destination is dead (doc/protocol.md, "In doubt") */

static bool declaration_kept(struct kernel *k, const char *kernel)
{
	AUTOBUF body = BUF_MAX(65536);

	return store_get(k->store, T_DECLARED, kernel, strlen(kernel), &body, NULL) == 0;
}

/* One that is linked is not dead, whatever the journal still says. */
bool home_is_declared(struct kernel *k, const char *kernel)
{
	return declaration_kept(k, kernel) && !links_find(k->links, kernel);
}

struct grant {
	struct kernel *k;
	struct request *rq;
	char name[NAME_BYTES_MAX + 1];
};

static void ask_answer(struct request *rq, const char *word, const struct incarnation *e)
{
	struct tos_value *out = tos_map();

	tos_set(out, "answer", tos_text(word));
	if (e)
		tos_set(out, "e", incarnation_value(e));
	request_ok(rq, out);
}

static void granted(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct grant *g = arg;
	struct home_record *h = home_find(g->k, g->name);

	FAULT_AT(GRANT_JOURNALED);
	if (h)
		raise_end(g->k, h, rc);
	if (rc < 0) {
		request_fail(g->rq, rc, "%s", err_show(rc, em));
	} else if (!h || shell_ended(h->state)) {
		ask_answer(g->rq, "elsewhere", NULL); /* killed meanwhile */
	} else {
		home_place(h, who_asks(g->k, g->rq), 0);
		h->in_doubt = false;
		h->from[0] = 0;
		place_answers(h);
		if (strcmp(h->wanted, "retry") == 0)
			h->wanted[0] = 0;
		ask_answer(g->rq, "granted", &h->e);
	}
}

/* The holder asks anew: it had not got the answer, or had lost it in a crash. */
static bool granted_before(
	const struct home_record *h, const char *who, const struct incarnation *e, uint64_t n)
{
	return !shell_ended(h->state) && incarnation_compare(e, &h->e) < 0 &&
	       strcmp(h->kernel, who) == 0 && h->n <= n + 1;
}

/* May that kernel have a copy that it froze for a departure to dest? The place that the home
 * knows, or one that was handed it from there; where the home heard of it at dest already, the
 * one that handed it there. */
static bool may_ask(struct kernel *k, const struct home_record *h, const struct request *rq,
	const struct incarnation *e, const char *dest)
{
	if (strcmp(h->kernel, dest) == 0 && strcmp(h->from, who_asks(k, rq)) == 0)
		return true;
	return judge(k, h, rq, e) == EVIDENCE_GOOD;
}

static void ask_verb(struct kernel *k, struct request *rq)
{
	struct home_record *h = home_args(k, rq);
	const char *dest = tos_get_text(rq->args, "dest", "");
	uint64_t n = (uint64_t)tos_get_int(rq->args, "n", 0);
	struct incarnation e;
	struct store_txn *t;
	struct grant *g;
	struct tos_value *m;
	char was[sizeof(h->kernel)];
	int rc;

	if (!h) {
		home_unknown(k, rq);
		return;
	}
	FAULT_AT(ASK_TAKEN);
	if (incarnation_read(tos_get(rq->args, "e"), &e) < 0) {
		request_fail(rq, ERR_MALFORMED, "ASK lacks e");
		return;
	}
	if (busy_refused(h, rq))
		return;
	if (granted_before(h, who_asks(k, rq), &e, n)) {
		ask_answer(rq, "granted", &h->e);
		return;
	}
	/* Somebody has it in a later departure or a higher incarnation, or it is over. */
	if (shell_ended(h->state) || incarnation_compare(&e, &h->e) < 0 || h->n > n + 1) {
		ask_answer(rq, "elsewhere", NULL);
		return;
	}
	if (incarnation_compare(&e, &h->e) > 0 || !may_ask(k, h, rq, &e, dest)) {
		report_ignored(k, h, rq);
		request_fail(rq, ERR_DENIED, "%s does not hold %s", who_asks(k, rq), h->name);
		return;
	}
	if (!home_is_declared(k, dest)) {
		request_fail(rq, ERR_IN_DOUBT,
			"%s may be at %s, which nobody declared dead: if it is, say tos resolve --dead %s",
			h->name, dest, dest);
		return;
	}
	g = mem_new(struct grant);
	g->k = k;
	g->rq = rq;
	snprintf(g->name, sizeof(g->name), "%s", h->name);
	m = tos_map();
	tos_set(m, "carrier", tos_text(h->name));
	tos_set(m, "holder", tos_text(who_asks(k, rq)));
	tos_set(m, "dead", tos_text(dest));
	/* The row as it will be; memory follows when it is durable. */
	raise_begin(h);
	snprintf(was, sizeof(was), "%s", h->kernel);
	snprintf(h->kernel, sizeof(h->kernel), "%s", who_asks(k, rq));
	t = store_begin(k->store);
	home_put(t, h);
	snprintf(h->kernel, sizeof(h->kernel), "%s", was);
	audit_event(k, t, "incarnation-raised", m);
	FAULT_AT(GRANT_COMMIT);
	rc = store_commit(t, granted, g);
	if (rc < 0) {
		struct errmsg em = { "" };

		granted(g, rc, &em);
	}
}

void home_forced(struct kernel *k, struct home_record *h, const char *kernel,
	const struct incarnation *e)
{
	h->e = *e;
	h->n = 0; /* numbers of the incarnation before tell nothing of this one */
	h->from[0] = 0;
	h->in_doubt = false;
	home_place(h, kernel, 0);
	place_note(k, h->name, kernel);
	place_answers(h);
	incarnation_learn(k, h->id, e, h->expires_ms);
	home_save(k, h);
}

static void lost_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct home_saving *s = arg;
	struct home_record *h = map_find_str(s->k->homes, s->name);

	(void)em;
	if (h)
		home_end(s->k, h, rc); /* if not, the tick settles it anew */
}

/* No copy is left anywhere that the home could hear of. Nobody is told before it is durable: a
 * holder that hears of it ends its copy. */
void home_lost(struct kernel *k, struct home_record *h, const char *text)
{
	struct tos_value *o = tos_map(), *fault = tos_map();
	bool killed = strcmp(h->wanted, "killed") == 0;
	struct home_saving *s;
	struct store_txn *t;
	int rc;

	tos_set(fault, "code", tos_text(killed ? "killed" : "lost"));
	tos_set(fault, "text", tos_text(text));
	tos_set(fault, "kernel", tos_text(h->kernel));
	tos_set(o, "fault", fault);
	if (home_busy(h)) {
		tos_value_free(o);
		return;
	}
	home_close(h, killed ? SHELL_KILLED : SHELL_LOST, o);
	s = mem_new(struct home_saving);
	s->k = k;
	snprintf(s->name, sizeof(s->name), "%s", h->name);
	t = store_begin(k->store);
	home_put(t, h);
	FAULT_AT(HOME_COMMIT);
	rc = store_commit(t, lost_saved, s);
	if (rc < 0)
		lost_saved(s, rc, NULL);
}

/* Its place has no copy any more, by its own denial or by declaration. Whoever handed it there
 * may have kept its own, and is asked before it counts as lost; while that kernel is away
 * nothing is decided. */
static void home_settle(struct kernel *k, struct home_record *h)
{
	bool declared = home_is_declared(k, h->kernel);
	char text[200];

	if (shell_ended(h->state) || (!declared && !h->denied))
		return;
	h->holds_at_ms = clock_ms() + COMMAND_AGAIN_MS;
	if (home_busy(h))
		return;
	if (h->from[0] && strcmp(h->from, h->kernel) != 0 && !home_is_declared(k, h->from)) {
		holds_ask(k, h, h->from, declared ? h->kernel : "");
		return;
	}
	if (declared)
		snprintf(text, sizeof(text), "its kernel %s was declared dead", h->kernel);
	else
		snprintf(text, sizeof(text), "%s does not hold it, and nobody else does",
			h->kernel);
	home_lost(k, h, text);
}

void home_told(struct kernel *k, struct home_record *h, const char *where,
	const struct incarnation *e, uint64_t n)
{
	int cmp = incarnation_compare(e, &h->e);

	if (shell_ended(h->state) || cmp < 0 || (cmp == 0 && n <= h->n))
		return;
	h->e = *e;
	h->n = n;
	h->from[0] = 0;
	h->in_doubt = false;
	snprintf(h->kernel, sizeof(h->kernel), "%s", where);
	place_note(k, h->name, h->kernel);
	place_answers(h);
	incarnation_learn(k, h->id, &h->e, h->expires_ms);
	home_save(k, h);
	/* It may have moved on from there since. */
	if (strcmp(where, k->config.name) != 0)
		holds_ask(k, h, where, "");
}

/* A kernel was declared dead: carriers known to be there, with no copy in doubt elsewhere, are
 * lost. */
void home_declared(struct kernel *k, const char *dead, struct tos_value *names)
{
	struct home_record *h;
	size_t it = 0;

	while ((h = map_next(k->homes, &it, NULL, NULL)))
		if (!shell_ended(h->state) &&
			(strcmp(h->kernel, dead) == 0 || strcmp(h->from, dead) == 0)) {
			tos_push(names, tos_text(h->name));
			home_settle(k, h);
		}
}

/* It is linked, so it is not dead: what was granted meanwhile stays, and its copies give way. */
static void declaration_lift(struct kernel *k, const char *kernel)
{
	struct store_txn *t;
	struct tos_value *m;

	if (!declaration_kept(k, kernel))
		return;
	m = tos_map();
	tos_set(m, "kernel", tos_text(kernel));
	t = store_begin(k->store);
	store_del(t, T_DECLARED, kernel, strlen(kernel));
	audit_event(k, t, "declaration-lifted", m);
	store_commit(t, NULL, NULL);
	log_notice("a kernel that was declared dead is back", KV_STR("kernel", kernel));
}

/* ---- commands */

struct command {
	char name[NAME_BYTES_MAX + 1], wanted[sizeof(((struct home_record *)0)->wanted)];
};

static void on_command(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct command *c = arg;
	struct home_record *h = home_find(k, c->name);
	const char *state = tos_get_text(tos_at(elements, 0), "state", "");
	const char *departing = tos_get_text(tos_at(elements, 0), "departing", "");

	(void)text;
	if (!h)
		return;
	h->commanding = false;
	if (strcmp(h->wanted, c->wanted) != 0) {
		/* this answers an older wish: a kill must not be lost on it */
		h->command_at_ms = 0;
		return;
	}
	h->command_at_ms = clock_ms() + COMMAND_AGAIN_MS;
	if (strcmp(h->wanted, "suspended") == 0 && strcmp(state, "running") == 0)
		return; /* it was about to move: again, here or there */
	if (rc < 0 || departing[0] || strcmp(state, "gone") == 0)
		return; /* it is on its way: repeated until its place has said so */
	h->command_due = false;
	home_save(k, h);
}

static void command_send(struct kernel *k, struct home_record *h)
{
	struct resident *r = resident_find(k, h->name);
	struct tos_value *args;
	struct command *c;

	h->command_at_ms = clock_ms() + COMMAND_AGAIN_MS;
	if (r && r->state != SHELL_DEPARTING) {
		resident_wanted(r, h->wanted, &h->e);
		r = resident_find(k, h->name);
		h->command_due =
			r && r->state == SHELL_RUNNING && strcmp(h->wanted, "suspended") == 0;
		return;
	}
	if (!r && strcmp(h->kernel, k->config.name) == 0 && strcmp(h->wanted, "killed") == 0) {
		/* Killing works for what is not there any more, too. */
		home_outcome(k, h, SHELL_KILLED, NULL);
		home_save(k, h);
		return;
	}
	if (!h->kernel[0] || strcmp(h->kernel, k->config.name) == 0 || h->commanding)
		return;
	h->commanding = true;
	c = mem_new(struct command);
	snprintf(c->name, sizeof(c->name), "%s", h->name);
	snprintf(c->wanted, sizeof(c->wanted), "%s", h->wanted);
	args = tos_map();
	tos_set(args, "name", tos_text(h->name));
	tos_set(args, "wanted", tos_text(h->wanted));
	tos_set(args, "e", incarnation_value(&h->e));
	kernel_call(k, h->kernel, "Handoff", "COMMAND", args, k->config.call_ms, on_command, c);
}

struct wanted_saved {
	struct kernel *k;
	char name[NAME_BYTES_MAX + 1], wanted[sizeof(((struct home_record *)0)->wanted)];
	struct request *rq;
};

static void on_wanted_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct wanted_saved *w = arg;
	struct home_record *h = home_find(w->k, w->name);
	struct tos_value *out;

	FAULT_AT(WANT_JOURNALED);
	if (h && strcmp(w->wanted, "retry") == 0)
		raise_end(w->k, h, rc);
	/* A kill is done even if it could not be journaled. */
	if (h && !shell_ended(h->state) && (rc == 0 || strcmp(w->wanted, "killed") == 0)) {
		if (strcmp(h->wanted, "killed") != 0)
			snprintf(h->wanted, sizeof(h->wanted), "%s", w->wanted);
		h->command_due = true;
		command_send(w->k, h);
	}
	h = home_find(w->k, w->name);
	if (rc < 0) {
		request_fail(w->rq, rc, "%s", err_show(rc, em));
		return;
	}
	out = tos_map();
	tos_set(out, "name", tos_text(w->name));
	tos_set(out, "state", tos_text(h ? shell_state_word(h->state) : "gone"));
	tos_set(out, "wanted", tos_text(h ? h->wanted : ""));
	request_ok(w->rq, out);
}

int home_want(struct kernel *k, struct home_record *h, const char *wanted, struct request *rq)
{
	struct wanted_saved *w;
	struct store_txn *t;
	char was[sizeof(h->wanted)];
	bool due = h->command_due;
	int rc;

	if (shell_ended(h->state)) {
		request_fail(rq, ERR_STATE, "%s has ended (%s)", h->name,
			shell_state_word(h->state));
		return ERR_STATE;
	}
	if (strcmp(h->wanted, "killed") == 0 && strcmp(wanted, "killed") != 0) {
		request_fail(rq, ERR_STATE, "%s is being killed", h->name);
		return ERR_STATE;
	}
	if (strcmp(wanted, "retry") == 0) {
		if (h->state != SHELL_FAULTED || h->raising) {
			request_fail(rq, ERR_STATE,
				"%s is %s; only a faulted carrier is retried", h->name,
				shell_state_word(h->state));
			return ERR_STATE;
		}
		/* A higher incarnation: its requests to extensions are new ones. */
		raise_begin(h);
	}
	w = mem_new(struct wanted_saved);
	w->k = k;
	w->rq = rq;
	snprintf(w->name, sizeof(w->name), "%s", h->name);
	snprintf(w->wanted, sizeof(w->wanted), "%s", wanted);
	snprintf(was, sizeof(was), "%s", h->wanted);
	snprintf(h->wanted, sizeof(h->wanted), "%s", wanted);
	h->command_due = true;
	t = store_begin(k->store);
	home_put(t, h);
	/* Memory follows when it is durable; a kill does not wait for that. */
	if (strcmp(wanted, "killed") != 0) {
		snprintf(h->wanted, sizeof(h->wanted), "%s", was);
		h->command_due = due;
	}
	FAULT_AT(WANT_COMMIT);
	rc = store_commit(t, on_wanted_saved, w);
	if (rc < 0) {
		struct errmsg em = { "" };

		on_wanted_saved(w, rc, &em);
	}
	return 0;
}

/* ---- links and time */

struct holds_asked {
	char name[NAME_BYTES_MAX + 1], kernel[64];
	bool told; /* that its destination is dead */
};

/* A departure later than what is known here, or the one that leads away from there: a place may have
 * reported a higher n of a departure that it took back, and that a crash made undone. An older
 * record of that kernel's tells nothing. */
static bool gone_since(const struct home_record *h, const struct tos_value *m)
{
	struct incarnation e;

	return incarnation_read(tos_get(m, "e"), &e) == 0 &&
	       incarnation_compare(&e, &h->e) == 0 &&
	       (uint64_t)tos_get_int(m, "n", 0) + 1 >= h->n;
}

static void place_denies(struct kernel *k, struct home_record *h)
{
	int64_t now = clock_ms();

	if (!h->denied_ms) {
		h->denied_ms = now;
		h->holds_at_ms = now + DENIED_AGAIN_MS;
	} else if (now - h->denied_ms >= DENIED_AGAIN_MS) {
		h->denied = true;
		home_settle(k, h);
	}
}

/* What the place that the home knows says. */
static void place_said(
	struct kernel *k, struct home_record *h, const struct tos_value *m, bool told)
{
	const char *state = tos_get_text(m, "state", "");
	const char *dest = tos_get_text(m, "dest", "");

	if (strcmp(state, "gone") == 0 && gone_since(h, m)) {
		if (!name_kernel_ok(dest) || strcmp(dest, k->config.name) == 0)
			return;
		place_answers(h);
		h->n = (uint64_t)tos_get_int(m, "n", 0) + 1;
		h->from[0] = 0;
		home_place(h, dest, h->n);
		home_save(k, h);
		holds_ask(k, h, dest, "");
	} else if (strcmp(state, "gone") == 0 || strcmp(state, "unknown") == 0) {
		place_denies(k, h);
	} else {
		place_answers(h);
		/* In doubt towards a kernel that is declared dead here: it is to ask. */
		if (!told && strcmp(state, "departing") == 0 && dest[0] &&
			home_is_declared(k, dest))
			holds_ask(k, h, h->kernel, dest);
	}
}

/* What the kernel says that handed it to a place where it is not any more. */
static void source_said(struct kernel *k, struct home_record *h, const struct tos_value *m)
{
	const char *state = tos_get_text(m, "state", "");

	if (strcmp(state, "gone") != 0 && strcmp(state, "unknown") != 0)
		return; /* it has a copy, and asks for it: HOLDS told it why */
	h->from[0] = 0;
	home_settle(k, h);
}

static void on_holds(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct holds_asked *a = arg;
	struct home_record *h = home_find(k, a->name);
	const struct tos_value *m = tos_at(elements, 0);

	(void)text;
	if (!h || shell_ended(h->state))
		return;
	if (home_busy(h)) {
		h->holds_at_ms = clock_ms() + COMMAND_AGAIN_MS; /* asked anew */
		return;
	}
	if (strcmp(h->kernel, a->kernel) == 0) {
		if (rc == 0)
			place_said(k, h, m, a->told);
		else
			place_answers(h); /* no denial: it is asked when it is linked again */
	} else if (rc == 0 && strcmp(h->from, a->kernel) == 0) {
		source_said(k, h, m);
	}
}

static void holds_ask(
	struct kernel *k, struct home_record *h, const char *kernel, const char *dead)
{
	struct holds_asked *a = mem_new(struct holds_asked);
	struct tos_value *args = tos_map();

	snprintf(a->name, sizeof(a->name), "%s", h->name);
	snprintf(a->kernel, sizeof(a->kernel), "%s", kernel);
	tos_set(args, "name", tos_text(h->name));
	tos_set(args, "id", tos_bytes(h->id, DIGEST_BYTES));
	if (dead[0])
		tos_set(args, "dead", tos_text(dead));
	a->told = dead[0] != 0;
	kernel_call(k, kernel, "Handoff", "HOLDS", args, k->config.call_ms, on_holds, a);
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
			r->report_at_ms = 0;
		}
	it = 0;
	while ((h = map_next(k->homes, &it, NULL, NULL))) {
		if (!shell_ended(h->state) && strcmp(h->from, peer) == 0)
			home_settle(k, h);
		if (strcmp(h->kernel, peer) != 0 || shell_ended(h->state))
			continue;
		h->command_at_ms = 0;
		holds_ask(k, h, peer, "");
	}
}

void homes_tick(struct kernel *k, int64_t now_ms)
{
	struct home_record *h;
	size_t it = 0;
	int64_t wall = clock_wall_ms();

	if (now_ms >= k->notes_at_ms) {
		k->notes_at_ms = now_ms + REPORTS_AGAIN_MS;
		reports_send(k, NULL);
	}
	while ((h = map_next(k->homes, &it, NULL, NULL))) {
		struct list *pos, *tmp;

		if (h->command_due && !shell_ended(h->state) && !h->closing &&
			now_ms >= h->command_at_ms) {
			/* may end a carrier; no record goes from this table */
			command_send(k, h);
		}
		if (h->holds_at_ms && !shell_ended(h->state) && now_ms >= h->holds_at_ms) {
			h->holds_at_ms = 0;
			if (h->denied || home_is_declared(k, h->kernel))
				home_settle(k, h);
			else
				holds_ask(k, h, h->kernel, "");
		}
		if (h->place_due && !h->save_due && !home_busy(h) && now_ms >= h->place_at_ms)
			home_save(k, h);
		if (h->save_due && !home_busy(h) && now_ms >= h->save_at_ms) {
			h->save_at_ms = now_ms + COMMAND_AGAIN_MS;
			home_save(k, h);
		}
		LIST_EACH_SAFE(pos, tmp, &h->waiters)
		{
			struct outcome_waiter *w = LIST_ITEM(pos, struct outcome_waiter, node);

			if (now_ms < w->until_ms)
				continue;
			request_fail(waiter_end(w), ERR_TIMEOUT, "%s is still %s at %s",
				h->name, shell_state_word(h->state), h->kernel);
		}
		/* Lines that were on their way when it ended may come a little later. */
		if (map_size(k->watchers) && shell_ended(h->state) &&
			wall - h->ended_ms > WATCHED_AFTER_MS)
			watch_end(k, h->name);
		if (shell_ended(h->state) && wall - h->ended_ms > IN_MEMORY_MS &&
			list_empty(&h->waiters)) {
			map_del_str(k->homes, h->name);
			home_free(h);
		}
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
