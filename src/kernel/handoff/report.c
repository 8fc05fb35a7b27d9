/*
 * Reports: what a kernel that holds a carrier tells its home. Where it is, that it moved on, how
 * it ended, and events for whoever watches. GONE and ENDED are kept in the store until the home
 * has answered them; the rest is news, sent again while it is true.
 */
#include "kernel/handoff/forced.h"
#include "kernel/handoff/evidence.h"
#include "kernel/home/families.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/report.h"
#include "kernel/handoff/restored.h"
#include "wire/record.h"

#define KEEP_MS        ((int64_t)210 * 86400000) /* a home may be away for long */
#define EVENT_TEXT_MAX 8192
#define SHOWN_AGAIN_MS 10000
#define REPORT_MOST_MS 10000 /* between two reports that the home does not get */
#define NEWS_AFTER_MS  200   /* a shorter stay is worth no second report */

/* The home wants the records that lead here from the place it names: once more with them. Where
 * they are too many for a report its own asking of the places in between has to do. */
static void show_chain(struct resident *r, const struct tos_value *show)
{
	const char *kernel = tos_get_text(show, "kernel", "");
	uint64_t n = (uint64_t)tos_get_int(show, "n", 0);

	if (r->chain_due && strcmp(r->chain_at, kernel) == 0 && r->chain_n == n) {
		r->report_due = true;
		r->report_at_ms = clock_ms() + SHOWN_AGAIN_MS;
		return;
	}
	snprintf(r->chain_at, sizeof(r->chain_at), "%s", kernel);
	r->chain_n = n;
	r->chain_due = true;
	home_report(r);
}

static void on_reported(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE char *name = arg;
	struct resident *r = resident_find(k, name);
	const struct tos_value *m = tos_at(elements, 0);
	const char *wanted = tos_get_text(m, "wanted", "");
	char why[200];
	struct incarnation e;

	(void)text;
	FAULT_AT(REPORT_ACKED);
	restored_see(k, r ? r->ticket.home : "", m);
	if (!r)
		return;
	r->reporting = false;
	if (rc == ERR_SUPERSEDED) {
		resident_end(r, SHELL_EV_SUPERSEDE,
			r->suffix[0] ? text : "its home never granted this incarnation");
		return;
	}
	/* A restored home may have forgotten it: it is shown its birth once more. */
	if (rc == ERR_NOT_FOUND && r->birth_known) {
		r->birth_known = false;
		home_report(r);
		return;
	}
	if (rc == ERR_NOT_FOUND) {
		/* The home forgot it, or never knew it. It is not ours to decide: it goes on
		 * and is kept; its end is reported all the same. */
		r->report_due = false;
		return;
	}
	if (rc < 0) {
		r->report_due = true;
		r->report_pause_ms =
			pause_longer(r->report_pause_ms, k->config.retry_ms, REPORT_MOST_MS);
		r->report_at_ms = clock_ms() + r->report_pause_ms;
		return;
	}
	r->report_pause_ms = 0;
	r->birth_known = r->suffix[0] != 0;
	if (tos_get(m, "void") && (uint64_t)tos_get_int(m, "void", -1) == r->n &&
		r->state != SHELL_DEPARTING && incarnation_read(tos_get(m, "e"), &e) == 0 &&
		incarnation_compare(&r->e, &e) == 0) {
		resident_end(r, SHELL_EV_SUPERSEDE, "its home knows that it went another way");
		return;
	}
	if (tos_get(m, "show")) {
		show_chain(r, tos_get(m, "show"));
		return;
	}
	r->chain_due = false;
	/* A later departure of a copy that never left here: this store must be an old one. */
	if (r->loaded && r->state != SHELL_DEPARTING && rc == 0 &&
		incarnation_read(tos_get(m, "e"), &e) == 0 &&
		incarnation_compare(&e, &r->e) == 0 && tos_get_int(m, "n", 0) > (int64_t)r->n) {
		snprintf(why, sizeof(why), "%s knows of a later departure of %s",
			r->ticket.home, r->name);
		restored_begin(k, why, 0, 0);
		return;
	}
	if (strcmp(wanted, "retry") == 0 && incarnation_read(tos_get(m, "e"), &e) == 0) {
		resident_wanted(r, wanted, &e);
		return;
	}
	/* A higher incarnation may be the one that was granted to this very copy, whose holder had not
	 * heard of it when it died: the answer to ASK says. */
	if (r->asking && !tos_get_bool(m, "ended", false))
		return;
	if (incarnation_read(tos_get(m, "e"), &e) == 0 && incarnation_compare(&r->e, &e) < 0) {
		incarnation_learn(k, r->id, &e, r->ticket.expires_ms);
		resident_end(r, SHELL_EV_SUPERSEDE, "its home knows a higher incarnation");
		return;
	}
	/* Learnt from the home alone: a record of another kernel's may claim any incarnation. */
	if (incarnation_read(tos_get(m, "e"), &e) == 0 && incarnation_compare(&r->e, &e) == 0)
		incarnation_learn(k, r->id, &e, r->ticket.expires_ms);
	restored_confirmed(r);
	if (wanted[0] && r->state != SHELL_DEPARTING)
		resident_wanted(r, wanted, NULL);
	else if (tos_get_bool(m, "ended", false) && r->in_doubt && !r->outcome_move)
		/* Whoever has the other copy is told the same: nothing is left to settle. */
		resident_end(r, SHELL_EV_SUPERSEDE, "it has ended otherwise");
}

#define EVIDENCE_BYTES_MAX ((size_t)128 << 10)
#define REPORT_LOG_BYTES   ((size_t)256 << 10)

/* What shows the home that the carrier came here: the record that another kernel signed for it. */
void home_evidence(struct resident *r, struct tos_value *args)
{
	forced_evidence(r, args);
	family_evidence(r, args);
	for (size_t i = records_n(&r->hops); i > 0; i--) {
		struct hop hop = { .parts = NULL };
		struct slice bytes = records_at(&r->hops, i - 1);
		bool from_other;

		from_other = record_hop(bytes, &hop, NULL) == 0 &&
			     strcmp(hop.from, r->k->config.name) != 0;
		/* What came before a clone was made is its parent's. */
		if (hop.kind == HOP_CLONE)
			i = 1;
		hop_fini(&hop);
		if (!from_other)
			continue;
		if (bytes.n <= EVIDENCE_BYTES_MAX)
			tos_set(args, "hop", tos_bytes(bytes.p, bytes.n));
		return;
	}
}

/* A list's last elements, as many as fit: a report must fit a frame whatever the carrier
 * logged. */
static void put_last(
	struct tos_value *args, const char *key, const struct tos_value *list, size_t most)
{
	struct tos_value *out = tos_array();
	size_t from = tos_len(list), bytes = 0;

	while (from > 0) {
		uint8_t *enc = NULL;
		size_t n = 0;

		if (tos_encode(tos_at(list, from - 1), &enc, &n) < 0)
			n = most;
		free(enc);
		bytes += n;
		if (bytes > most)
			break;
		from--;
	}
	for (; from < tos_len(list); from++)
		tos_push(out, tos_value_copy(tos_at(list, from)));
	tos_set(args, key, out);
}

/* ARRIVED: where it is, in what state, in which incarnation. Repeated until the home has
 * answered. */
void home_report(struct resident *r)
{
	struct tos_value *args;

	if (r->reporting || r->quarantined) {
		r->report_due = true;
		r->report_at_ms = clock_ms() + 100;
		return;
	}
	args = tos_map();
	tos_set(args, "name", tos_text(r->name));
	tos_set(args, "id", tos_bytes(r->id, DIGEST_BYTES));
	tos_set(args, "e", incarnation_value(&r->e));
	tos_set(args, "n", tos_int((int64_t)r->n));
	tos_set(args, "state", tos_text(shell_state_word(r->state)));
	tos_set(args, "in_doubt", tos_bool(r->in_doubt));
	restored_stamp(r->k, args);
	home_evidence(r, args);
	if (r->chain_due)
		evidence_chain(r, r->chain_at, r->chain_n, args);
	if (r->fault)
		tos_set(args, "fault", tos_value_copy(r->fault));
	if (r->state == SHELL_FAULTED) {
		if (r->n_made)
			tos_set(args, "clones", tos_int((int64_t)r->n_made));
		put_last(args, "trail", lines_all(&r->trail), REPORT_LOG_BYTES);
		put_last(args, "log", lines_all(&r->log), REPORT_LOG_BYTES);
		if (r->briefcase.n < (256 << 10)) {
			struct tos_value *b = NULL;

			if (tos_decode(r->briefcase.p, r->briefcase.n, 0, &b) == 0)
				tos_set(args, "briefcase", b);
		}
	}
	FAULT_AT(REPORT_SEND);
	r->reporting = true;
	r->report_due = false; /* news that comes from here on makes it due again */
	kernel_call(r->k, r->ticket.home, "Home", "ARRIVED", args, r->k->config.report_ms,
		on_reported, mem_strdup(r->name));
}

void home_report_soon(struct resident *r)
{
	/* What is here is seen here. */
	if (r->report_due || strcmp(r->ticket.home, r->k->config.name) == 0)
		return;
	r->report_due = true;
	r->report_at_ms = clock_ms() + NEWS_AFTER_MS;
}

struct outbox_note {
	char key[NAME_BYTES_MAX + 40];
	char home[64], verb[16];
	struct tos_value *args;
};

static void outbox_free(struct outbox_note *o)
{
	tos_value_free(o->args);
	free(o);
}

static void on_note(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct outbox_note *o = arg;
	struct store_txn *t;

	(void)text;
	(void)elements;
	map_del_str(k->notes, o->key);
	/* Any answer of the home's own settles it; only silence and a missing link do not. */
	if (rc == 0 || rc == ERR_NOT_FOUND || rc == ERR_SUPERSEDED || rc == ERR_DENIED) {
		FAULT_AT(NOTE_ACKED);
		/* Each departure has a key of its own: that row can wait to be deleted, and if it
		 * stays it is only said again. An end's may be written anew meanwhile. */
		bool lazy = strncmp(o->key, "GONE|", 5) == 0;

		t = lazy ? kernel_lazy(k) : store_begin(k->store);
		store_del(t, T_OUTBOX, o->key, strlen(o->key));
		if (!lazy)
			store_commit(t, NULL, NULL);
	}
	outbox_free(o);
}

static void note_send(struct kernel *k, struct outbox_note *o)
{
	if (map_find_str(k->notes, o->key)) {
		outbox_free(o);
		return;
	}
	map_put_str(k->notes, o->key, k);
	kernel_call(k, o->home, "Home", o->verb, tos_value_copy(o->args), k->config.report_ms,
		on_note, o);
}

static struct outbox_note *outbox_note_new(
	const char *home, const char *verb, const char *key, struct tos_value *args)
{
	struct outbox_note *o = mem_new(struct outbox_note);

	snprintf(o->key, sizeof(o->key), "%s", key);
	snprintf(o->home, sizeof(o->home), "%s", home);
	snprintf(o->verb, sizeof(o->verb), "%s", verb);
	o->args = args;
	return o;
}

static void outbox_put(struct store_txn *t, const struct outbox_note *o)
{
	struct tos_value *m = tos_map();
	uint8_t *bytes = NULL;
	size_t n;

	tos_set(m, "home", tos_text(o->home));
	tos_set(m, "verb", tos_text(o->verb));
	tos_set(m, "args", tos_value_copy(o->args));
	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, T_OUTBOX, o->key, strlen(o->key), bytes, n,
			clock_wall_ms() + KEEP_MS);
	free(bytes);
	tos_value_free(m);
}

/* A report that must reach the home in the end: kept in the store until it is answered, from
 * the transaction on that it is about. Takes args. */
static void outbox_add(struct store_txn *t, struct kernel *k, const char *home,
	const char *verb, const char *key, struct tos_value *args)
{
	struct outbox_note *o = outbox_note_new(home, verb, key, args);

	outbox_put(t, o);
	note_send(k, o);
}

/* CLONED: where and of whom a clone was made. */
static struct outbox_note *birth_note(const struct resident *r)
{
	struct tos_value *args = tos_map();
	char key[NAME_BYTES_MAX + 40];

	snprintf(key, sizeof(key), "CLONED|%s", r->name);
	tos_set(args, "name", tos_text(r->name));
	tos_set(args, "id", tos_bytes(r->id, DIGEST_BYTES));
	family_evidence(r, args);
	return outbox_note_new(r->ticket.home, "CLONED", key, args);
}

void home_birth_put(struct store_txn *t, const struct resident *r)
{
	struct outbox_note *o = birth_note(r);

	outbox_put(t, o);
	outbox_free(o);
}

void home_birth_send(const struct resident *r)
{
	note_send(r->k, birth_note(r));
}

static int outbox_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct {
		struct kernel *k;
		const char *peer;
	} *ctx = arg;
	struct tos_value *m = NULL;
	struct outbox_note *o;

	(void)expires_ms;
	if (tos_decode(body.p, body.n, 0, &m) < 0)
		return 0;
	const char *home = tos_get_text(m, "home", "");

	/* Without a peer: whatever can be sent now, to this kernel itself too. */
	if ((ctx->peer ? strcmp(home, ctx->peer) == 0
		       : strcmp(home, ctx->k->config.name) == 0 ||
				    links_find(ctx->k->links, home)) &&
		key.n < sizeof(o->key)) {
		o = mem_new(struct outbox_note);
		slice_copy_text(key, o->key, sizeof(o->key));
		snprintf(o->home, sizeof(o->home), "%s", home);
		snprintf(o->verb, sizeof(o->verb), "%s", tos_get_text(m, "verb", ""));
		o->args = tos_value_copy(tos_get(m, "args"));
		note_send(ctx->k, o);
	}
	tos_value_free(m);
	return 0;
}

/* What the store still keeps for peer; NULL: for whoever can be reached now. */
void reports_send(struct kernel *k, const char *peer)
{
	struct {
		struct kernel *k;
		const char *peer;
	} ctx = { k, peer };
	struct errmsg em;

	store_each(k->store, T_OUTBOX, (struct slice){ NULL, 0 }, outbox_row, &ctx, &em);
}

void home_report_gone(struct store_txn *t, struct resident *r, uint64_t n, const char *dest)
{
	struct tos_value *args = tos_map();
	char key[NAME_BYTES_MAX + 40];

	/* Each departure has its own: one that is answered late must not take the next along. */
	snprintf(key, sizeof(key), "GONE|%s|%llu", r->name, (unsigned long long)n);

	tos_set(args, "name", tos_text(r->name));
	tos_set(args, "id", tos_bytes(r->id, DIGEST_BYTES));
	tos_set(args, "e", incarnation_value(&r->e));
	tos_set(args, "n", tos_int((int64_t)n));
	tos_set(args, "dest", tos_text(dest));
	restored_stamp(r->k, args);
	home_evidence(r, args);
	outbox_add(t, r->k, r->ticket.home, "GONE", key, args);
}

static void ended_key(char *out, size_t cap, const char *name)
{
	snprintf(out, cap, "ENDED|%s", name);
}

bool home_ended_waits(struct kernel *k, const char *name)
{
	AUTOBUF body = BUF_MAX((size_t)8 << 20);
	char key[NAME_BYTES_MAX + 40];

	ended_key(key, sizeof(key), name);
	return store_get(k->store, T_OUTBOX, key, strlen(key), &body, NULL) != ERR_NOT_FOUND;
}

void home_ended(
	struct store_txn *t, struct resident *r, enum shell_state state, const char *why)
{
	struct tos_value *args;
	char key[NAME_BYTES_MAX + 40];

	if (state == SHELL_SUPERSEDED)
		return; /* the other incarnation speaks for it */
	args = tos_map();
	tos_set(args, "name", tos_text(r->name));
	tos_set(args, "id", tos_bytes(r->id, DIGEST_BYTES));
	tos_set(args, "e", incarnation_value(&r->e));
	tos_set(args, "state", tos_text(shell_state_word(state)));
	tos_set(args, "why", tos_text(why));
	home_evidence(r, args);
	evidence_chain_all(r, args);
	put_last(args, "trail", lines_all(&r->trail), REPORT_LOG_BYTES);
	put_last(args, "log", lines_all(&r->log), REPORT_LOG_BYTES);
	if (r->n_made)
		tos_set(args, "clones", tos_int((int64_t)r->n_made));
	ended_key(key, sizeof(key), r->name);
	outbox_add(t, r->k, r->ticket.home, "ENDED", key, args);
}

/* For watchers: log lines, states, waits. Not journaled; lost when the home can't be reached. */
void home_event(struct kernel *k, const char *home, const char *name, const char *kind,
	const char *state, const char *text)
{
	struct tos_value *ev;
	char cut[EVENT_TEXT_MAX];

	if (!home[0] || k->stopping)
		return;
	snprintf(cut, sizeof(cut), "%s", text ? text : "");
	ev = tos_map();
	tos_set(ev, "name", tos_text(name));
	tos_set(ev, "kind", tos_text(kind));
	if (state)
		tos_set(ev, "state", tos_text(state));
	if (tos_set(ev, "text", tos_text(cut)) < 0)
		tos_set(ev, "text", tos_text("(not UTF-8)"));
	tos_set(ev, "kernel", tos_text(k->config.name));
	tos_set(ev, "wall", tos_int(clock_wall_ms()));
	if (strcmp(home, k->config.name) == 0)
		watch_event(k, name, ev);
	else if (links_find(k->links, home))
		kernel_notify(k, home, "Home", "EVENT", ev);
	else
		tos_value_free(ev);
}
