/*
 * The destination's side of the hand-off (doc/protocol.md, "Hand-off"): what is offered is
 * judged by policy and free quota, what is sent is checked against ticket, code and chain of
 * hop records, journaled, and only then accepted. An answer is kept and given again to the same
 * record.
 */
#include "kernel/handoff/forced.h"
#include "kernel/handoff/gone.h"
#include "kernel/handoff/evidence.h"
#include "kernel/carrier/family.h"
#include "kernel/home/families.h"
#include "kernel/handoff/handoff.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"
#include "core/path.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/seals.h"
#include "kernel/carrier/vms.h"
#include "kernel/handoff/chain.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/report.h"
#include "kernel/handoff/restored.h"
#include "kernel/upload.h"
#include "kernel/home/home.h"
#include "kernel/trust/trust.h"
#include "seal/records.h"
#include "tos/extension.h"

#define REPEATS_MAX 16 /* of one record that wait for the same answer */

static void answer_key(struct buf *b, const uint8_t id[DIGEST_BYTES], const char *suffix,
	const struct incarnation *e, uint64_t n)
{
	buf_add(b, id, DIGEST_BYTES);
	buf_add_str(b, suffix);
	buf_add_u8(b, '|');
	for (int shift = 56; shift >= 0; shift -= 8)
		buf_add_u8(b, (uint8_t)(e->count >> shift));
	buf_add(b, e->nonce, sizeof(e->nonce));
	for (int shift = 56; shift >= 0; shift -= 8)
		buf_add_u8(b, (uint8_t)(n >> shift));
}

struct arrival {
	struct list late; /* in the kernel's: accepted, and its carrier is just being started */
	struct kernel *k;
	struct resident *r;
	/* our own older copy, put aside until it is journaled that this one is here */
	struct resident *old;
	/* struct waiting_request: the same record may come again meanwhile */
	struct list requests;
	size_t n_waiting;
	struct hop hop;
	struct blob hop_cose;
	struct buf key;
};

struct waiting_request {
	struct list node;
	struct request *rq;
};

static int offer_limits(const struct tos_value *m, int64_t out[LIMIT_COUNT])
{
	for (int i = 0; i < LIMIT_COUNT; i++)
		out[i] = tos_get_int(m, limit_names[i], -1);
	return 0;
}

/* Which of its family the offer is of. */
static int offer_who(const struct ticket *t, const struct tos_value *args,
	uint8_t id[DIGEST_BYTES], char name[NAME_BYTES_MAX + 1], struct errmsg *em)
{
	const char *suffix = tos_get_text(args, "suffix", "");

	if (!suffix_ok(suffix) || strlen(suffix) >= sizeof(((struct hop *)0)->suffix) ||
		strlen(t->name) + strlen(suffix) > NAME_BYTES_MAX)
		return err_set(em, ERR_NAME, "that is no clone's suffix");
	snprintf(name, NAME_BYTES_MAX + 1, "%s%s", t->name, suffix);
	family_id(id, suffix, id);
	return 0;
}

static void offer_judge(struct kernel *k, struct request *rq)
{
	struct ticket t = { .path = NULL };
	struct cert_info owner;
	struct incarnation e = { 0 }, *known;
	int64_t minimum[LIMIT_COUNT], granted[LIMIT_COUNT] = { 0 }, asked[LIMIT_COUNT];
	uint8_t id[DIGEST_BYTES];
	char name[NAME_BYTES_MAX + 1];
	struct errmsg em = { "" };
	struct tos_value *out, *limits;
	size_t n, n_code;
	const uint8_t *cose = tos_get_bytes(rq->args, "ticket", &n);
	const uint8_t *code = tos_get_bytes(rq->args, "code", &n_code);
	int64_t bytes = tos_get_int(rq->args, "bytes", 0);
	int rc = cose && n_code == DIGEST_BYTES
			 ? 0
			 : err_set(&em, ERR_MALFORMED, "an OFFER lacks its ticket");

	FAULT_AT(OFFER_TAKEN);
	if (rc == 0)
		rc = ticket_verify(k, (struct slice){ cose, n }, &t, id, &owner, &em);
	if (rc == 0)
		rc = offer_who(&t, rq->args, id, name, &em);
	if (rc == 0)
		rc = admit_check(k, &owner, "arrive", !resident_find(k, name), &em);
	offer_limits(tos_get(rq->args, "minimum"), minimum);
	offer_limits(tos_get(rq->args, "limits"), asked);
	limits_least(asked, asked, t.limits);
	if (rc == 0)
		rc = admit_limits(k, asked, minimum, granted, &em);
	if (rc == 0 && bytes > granted[LIMIT_state])
		rc = err_set(&em, ERR_LIMIT, "limit state: %lld bytes, %s grants %lld",
			(long long)bytes, k->config.name, (long long)granted[LIMIT_state]);
	if (rc == 0)
		rc = account_room(k, owner.name, bytes, &em);
	if (rc == 0 && tos_get_int(rq->args, "hops", 0) >= granted[LIMIT_hops])
		rc = err_set(&em, ERR_LIMIT, "limit hops: %s grants %lld", k->config.name,
			(long long)granted[LIMIT_hops]);
	if (rc == 0) {
		known = incarnation_known(k, id);
		incarnation_read(tos_get(rq->args, "e"), &e);
		if (known && incarnation_compare(&e, known) < 0)
			rc = err_set(&em, ERR_SUPERSEDED, "a higher incarnation of %s is known",
				name);
	}
	if (rc < 0) {
		ticket_fini(&t);
		metric_add(k->metrics, "offers_refused_total", NULL, 1);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	restored_offered(k, id, (uint64_t)tos_get_int(rq->args, "n", 0));
	out = tos_map();
	limits = tos_map();
	for (int i = 0; i < LIMIT_COUNT; i++)
		tos_set(limits, limit_names[i], tos_int(granted[i]));
	tos_set(out, "granted", limits);
	tos_set(out, "need_code", tos_bool(code_find(k, code, NULL) == NULL));
	ticket_fini(&t);
	request_ok(rq, out);
	FAULT_AT(OFFER_ANSWERED);
}

static void offer_verb(struct kernel *k, struct request *rq)
{
	if (!fresh_wait(k, rq, offer_judge))
		offer_judge(k, rq);
}

static struct tos_value *answer_map(const char *word, int rc, const char *text)
{
	struct tos_value *m = tos_map();

	tos_set(m, "answer", tos_text(word));
	if (rc < 0) {
		tos_set(m, "code", tos_text(err_word(rc)));
		tos_set(m, "text", tos_text(text));
	}
	return m;
}

static void arrival_free(struct arrival *a)
{
	resident_free(a->r);
	resident_free(a->old);
	hop_fini(&a->hop);
	blob_free(&a->hop_cose);
	buf_fini(&a->key);
	free(a);
}

/* Answer everybody who sent this record; the arrival is over. */
static void arrival_answer(struct arrival *a, const char *word, int rc, const char *text)
{
	struct kernel *k = a->k;
	struct tos_value *m;

	map_del(k->arrivals, a->key.data, a->key.len);
	while (!list_empty(&a->requests)) {
		struct waiting_request *w =
			LIST_ITEM(a->requests.next, struct waiting_request, node);

		list_del(&w->node);
		m = answer_map(word, rc, text);
		restored_stamp(k, m);
		request_ok(w->rq, m);
		free(w);
	}
	arrival_free(a);
}

/* An older copy of ours whose departure never was answered: this arrival is the proof that it was
 * accepted. Nobody finds it any more, and it comes back if the journal fails. */
static void old_put_aside(struct arrival *a, struct resident *old)
{
	vm_abandon(old);
	move_cancel(old);
	list_del(&old->signing);
	map_del_str(a->k->residents, old->name);
	router_held_move(old, a->r);
	a->old = old;
}

static void old_put_back(struct arrival *a)
{
	struct resident *old = STEAL(a->old);

	if (!old)
		return;
	router_held_move(a->r, old);
	a->r->saved = false; /* the row, and what is counted for it, is the old one's */
	old->resending = false;
	old->resend_at_ms = clock_ms() + a->k->config.retry_ms;
	map_put_str(a->k->residents, old->name, old);
}

/* The journal failed: no answer was given, so the source keeps its copy and asks again. */
static void arrival_no_answer(struct arrival *a, int rc, const char *text)
{
	old_put_back(a);
	map_del(a->k->arrivals, a->key.data, a->key.len);
	while (!list_empty(&a->requests)) {
		struct waiting_request *w =
			LIST_ITEM(a->requests.next, struct waiting_request, node);

		list_del(&w->node);
		request_fail(w->rq, rc, "%s", text);
		free(w);
	}
	arrival_free(a);
}

struct refusal {
	struct arrival *a;
	int rc;
	char text[ERRMSG_BYTES];
};

static void refusal_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct refusal *f = arg;

	FAULT_AT(REFUSE_JOURNALED);
	if (rc < 0)
		arrival_no_answer(f->a, rc, err_show(rc, em));
	else
		arrival_answer(f->a, "refused", f->rc, f->text);
	FAULT_AT(REFUSE_ANSWERED);
}

/* Whose arrival it was: by its ticket where that was believed, else by what is known here of its id. */
static void refused_name(const struct arrival *a, char *out, size_t cap)
{
	const struct resident *r = resident_by_id(a->k, a->hop.id);
	struct tos_value *m;

	snprintf(out, cap, "%s", a->r->name[0] ? a->r->name : r ? r->name : "");
	if (out[0])
		return;
	m = gone_find(a->k, a->hop.id);
	snprintf(out, cap, "%s", tos_get_text(m, "name", ""));
	tos_value_free(m);
}

static void arrival_refuse(struct arrival *a, int rc, const char *text)
{
	struct kernel *k = a->k;
	char name[NAME_BYTES_MAX + 1], hex[2 * DIGEST_BYTES + 1];
	struct refusal *f;
	struct store_txn *t;
	struct tos_value *m;
	int failed;

	metric_add(k->metrics, "arrivals_refused_total", NULL, 1);
	if (!refusal_may_be_kept(k, a->hop.from)) {
		/* No answer: an honest source keeps its copy and asks again. */
		arrival_no_answer(
			a, ERR_FULL, "too many of this kernel's carriers are refused");
		return;
	}
	f = mem_new(struct refusal);
	t = store_begin(k->store);
	m = tos_map();
	f->a = a;
	f->rc = rc;
	snprintf(f->text, sizeof(f->text), "%s", text);
	refused_name(a, name, sizeof(name));
	log_notice("arrival refused", KV_STR("carrier", name), KV_STR("from", a->hop.from),
		KV_STR("error", err_word(rc)), KV_STR("reason", text));
	tos_set(m, "from", tos_text(a->hop.from));
	tos_set(m, "carrier", tos_text(name));
	tos_set(m, "id", tos_text(text_hex(a->hop.id, DIGEST_BYTES, hex)));
	if (!name[0] && a->r->ticket.name[0]) /* nobody has vouched for that */
		tos_set(m, "claims", tos_text(a->r->ticket.name));
	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(text));
	journal_put(t, T_ANSWER, &a->key, answer_map("refused", rc, text),
		(a->r->ticket.expires_ms ? a->r->ticket.expires_ms : clock_wall_ms()) +
			KEEP_AFTER_MS);
	audit_refusal(k, t, a->hop.from, "arrival-refused", m);
	FAULT_AT(REFUSE_COMMIT);
	failed = store_commit(t, refusal_saved, f);
	if (failed < 0) {
		free(f);
		arrival_no_answer(a, failed, err_text(failed));
	}
}

static void report_arrival(struct kernel *k, void *arg)
{
	AUTOFREE char *name = arg;
	struct resident *r = resident_find(k, name);

	if (r)
		home_report(r);
}

/* ---- the carrier first, then the answer: the carrier is waited for, and what the source does with the
 * answer costs it, on a core that both have, as much time as to arrive. A repeat of the record
 * finds the answer in the journal meanwhile. */

#define ANSWER_LATEST_MS 2

static void answer_late(struct arrival *a)
{
	list_del(&a->late);
	arrival_answer(a, "accepted", 0, "");
	FAULT_AT(ARRIVE_ANSWERED);
}

void handoff_answer_all(struct kernel *k)
{
	while (!list_empty(&k->answers_late))
		answer_late(LIST_ITEM(k->answers_late.next, struct arrival, late));
}

static void answers_due(uv_timer_t *t)
{
	handoff_answer_all(t->data);
}

void handoff_answers_init(struct kernel *k)
{
	list_init(&k->answers_late);
	uv_timer_init(k->loop, &k->answer_timer);
	k->answer_timer.data = k;
}

void handoff_started(struct resident *r)
{
	struct list *at = r->k->answers_late.next;

	r->answer_late = false;
	while (at != &r->k->answers_late) {
		struct arrival *a = LIST_ITEM(at, struct arrival, late);

		at = at->next;
		if (memcmp(a->hop.id, r->id, DIGEST_BYTES) == 0)
			answer_late(a);
	}
}

static void answer_when_started(struct arrival *a, struct resident *r)
{
	struct kernel *k = a->k;

	if (!r || !r->vm_runs || k->stopping) {
		answer_late(a);
		return;
	}
	r->answer_late = true;
	map_del(k->arrivals, a->key.data, a->key.len);
	list_add(&k->answers_late, &a->late);
	if (!uv_is_active((uv_handle_t *)&k->answer_timer))
		uv_timer_start(&k->answer_timer, answers_due, ANSWER_LATEST_MS, 0);
}

static void arrival_saved(void *arg, int rc, const struct errmsg *em)
{
	struct arrival *a = arg;
	struct kernel *k = a->k;
	struct resident *r = a->r;
	char name[NAME_BYTES_MAX + 1];

	FAULT_AT(ARRIVE_JOURNALED);
	if (rc < 0) {
		arrival_no_answer(a, rc, err_show(rc, em));
		return;
	}
	a->r = NULL;
	if (a->old) {
		a->old->state = SHELL_DEPARTING;
		resident_event(a->old, SHELL_EV_ACCEPTED, NULL);
		a->old->saved = false; /* its row is the new one's by now */
		resident_free(STEAL(a->old));
	}
	account_open(r, true);
	resident_undelivered(r);
	metric_add(k->metrics, "arrivals_total", NULL, 1);
	map_put_str(k->residents, r->name, r);
	place_forget(k, r->name);
	snprintf(name, sizeof(name), "%s", r->name);
	FAULT_AT(ARRIVE_GOES_ON);
	resident_go_on_now(r); /* which may be its end */
	answer_when_started(a, resident_find(k, name));
	kernel_later(k, report_arrival, mem_strdup(name));
}

/* ---- answers of memory only */

#define FAST_TAKEN_MAX 65536

/* That a --fast carrier was accepted: said again to the same record for as long as this boot lasts, as
 * the journal's answers are. Another boot does not know the carrier either, and says so. */
struct fast_taken {
	int64_t expires_ms;
};

static void fast_note(struct arrival *a)
{
	struct fast_taken *f = mem_new(struct fast_taken);

	f->expires_ms = a->r->ticket.expires_ms + KEEP_AFTER_MS;
	free(map_put(a->k->fast_taken, a->key.data, a->key.len, f));
}

void handoff_expire(struct kernel *k)
{
	int64_t now = clock_wall_ms();
	struct fast_taken *f;
	const void *key;
	size_t it = 0, n;

	while ((f = map_next(k->fast_taken, &it, &key, &n)))
		if (f->expires_ms < now) {
			map_del(k->fast_taken, key, n);
			free(f);
		}
}

static void arrival_journal(struct arrival *a)
{
	struct kernel *k = a->k;
	struct resident *r = a->r, *old = resident_find(k, r->name);
	/* Where the memory for answers is full the disk has to do. */
	bool fast = handoff_fast(&r->ticket, &a->hop) &&
		    map_size(k->fast_taken) < FAST_TAKEN_MAX && !(old && old->saved);
	struct store_txn *t = fast ? kernel_lazy(k) : store_begin(k->store);
	struct tos_value *m = audit_carrier(r, a->hop.n);
	struct errmsg em = { "" };
	int rc;

	if (old)
		old_put_aside(a, old);
	resident_event(r, SHELL_EV_ADMIT, NULL);
	tos_set(m, "owner", tos_text(r->owner->name));
	tos_set(m, "from", tos_text(a->hop.from));
	if (fast) {
		audit_event(k, t, "arrived", m);
		fast_note(a);
		arrival_saved(a, 0, NULL);
		return;
	}
	journal_put(t, T_ANSWER, &a->key, answer_map("accepted", 0, ""),
		r->ticket.expires_ms + KEEP_AFTER_MS);
	resident_put(t, r);
	audit_event(k, t, "arrived", m);
	FAULT_AT(ARRIVE_COMMIT);
	rc = store_commit(t, arrival_saved, a);
	FAULT_AT(ARRIVE_COMMITTED);
	if (rc < 0) {
		arrival_no_answer(a, rc, err_show(rc, &em));
		return;
	}
	/* While the disk works. It runs once the journal has it. */
	vm_prepare(r);
	FAULT_AT(ARRIVE_PREPARED);
}

/* A higher incarnation was made known here, or is here: its arrival alone makes nothing known. */
static bool superseded(struct kernel *k, const struct hop *hop)
{
	const struct incarnation *known = incarnation_known(k, hop->id);
	const struct resident *r = resident_by_id(k, hop->id);

	return (known && incarnation_compare(&hop->e, known) < 0) ||
	       (r && incarnation_compare(&hop->e, &r->e) < 0);
}

/* All that was waited for is over: hooks, and the home where that is asked. */
static void arrival_decide(struct arrival *a, int rc, const char *text)
{
	const struct resident *old = resident_by_id(a->k, a->hop.id);

	if (superseded(a->k, &a->hop))
		arrival_answer(a, "superseded", ERR_SUPERSEDED,
			"a higher incarnation was made known meanwhile");
	else if (old && old->asking)
		/* What comes back is its destination's answer, too: set aside, as that is, until
		 * the home has said whose the carrier is. */
		arrival_no_answer(
			a, ERR_STATE, "a copy is here whose home is being asked about it");
	else if (rc < 0)
		arrival_refuse(a, rc == ERR_TIMEOUT ? ERR_REFUSED : rc, text);
	else
		arrival_journal(a);
}

/* Only the home's own word counts: one that is away, or that forgot the carrier, stops nobody. */
static void on_confirmed(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	bool no = rc == ERR_REPLAY || rc == ERR_SUPERSEDED || rc == ERR_DENIED;

	(void)elements;
	if (!no && rc < 0)
		metric_add(k->metrics, "arrivals_unconfirmed_total", NULL, 1);
	arrival_decide(arg, no ? rc : 0, text);
}

/* Where the host wants it the home says first whether the carrier can come from there
 * (doc/decisions/forks.md). */
static void arrival_confirm(struct arrival *a)
{
	struct tos_value *args = tos_map();

	tos_set(args, "name", tos_text(a->r->name));
	tos_set(args, "id", tos_bytes(a->r->id, DIGEST_BYTES));
	tos_set(args, "e", incarnation_value(&a->hop.e));
	tos_set(args, "hop", tos_bytes(a->hop_cose.p, a->hop_cose.n));
	evidence_chain_all(a->r, args);
	kernel_call(a->k, a->r->ticket.home, "Home", "CONFIRM", args, a->k->config.report_ms,
		on_confirmed, a);
}

static void on_arrival_hooks(struct kernel *k, void *arg, int rc, const char *text)
{
	struct arrival *a = arg;

	if (rc == 0 && k->config.confirm && strcmp(a->r->ticket.home, k->config.name) != 0)
		arrival_confirm(a);
	else
		arrival_decide(a, rc, text);
}

/* This kernel is its home: it knows whether the carrier can come from there. */
static int home_agrees(const struct arrival *a, struct errmsg *em)
{
	const struct resident *r = a->r;
	struct home_record *h;
	int rc;

	if (a->hop.kind != 0 || strcmp(r->ticket.home, a->k->config.name) != 0)
		return 0;
	h = home_find(a->k, r->name);
	if (!h)
		h = home_adopt(a->k, r, &a->hop);
	if (!h && (rc = family_arrived(a->k, r, &h, em)) < 0)
		return rc;
	if (!h || memcmp(h->id, r->id, DIGEST_BYTES) != 0)
		return err_set(em, ERR_UNKNOWN, "its home never launched it");
	if (shell_ended(h->state) || incarnation_compare(&a->hop.e, &h->e) != 0 ||
		evidence_passes(h, &r->hops, &a->hop))
		return 0; /* what is to become of it is decided elsewhere */
	return err_set(em, ERR_REPLAY, "its home knows it to be at %s", h->kernel);
}

static int parts_verify(const struct envelope *env, const struct hop *hop, struct errmsg *em)
{
	struct tos_value *digests = NULL;
	int rc = envelope_digests(env, &digests, em);

	if (rc == 0 && !tos_equal(digests, hop->parts)) {
		const char *part = "a part";

		for (size_t i = 0; i < tos_len(digests); i++)
			if (!tos_equal(tos_value_at(digests, i),
				    tos_get(hop->parts,
					    tos_as_text(tos_key_at(digests, i), ""))))
				part = tos_as_text(tos_key_at(digests, i), part);
		rc = err_set(em, ERR_SIGNATURE, "%s is not what %s signed", part, hop->from);
	}
	tos_value_free(digests);
	return rc;
}

static int arrival_code(
	struct kernel *k, struct request *rq, struct resident *r, struct errmsg *em)
{
	struct code *code = code_find(k, r->code_digest, em);
	struct slice bytes = { NULL, 0 };
	int rc;

	if (!code) {
		bytes.p = tos_get_bytes(rq->args, "code", &bytes.n);
		if (!bytes.n)
			bytes = upload_find(k, r->code_digest, &rq->from);
		if (!bytes.n)
			return err_set(em, ERR_NOT_FOUND, "the code did not come along");
		rc = code_verify(k, bytes, &code, em);
		if (rc < 0)
			return rc;
		if (memcmp(code->digest, r->code_digest, DIGEST_BYTES) != 0)
			return err_set(
				em, ERR_SIGNATURE, "the code is not what the ticket names");
	}
	blob_share(&r->code, &code->bundle);
	cert_keep(&r->author, &code->author);
	memcpy(r->minimum, code->manifest.limits, sizeof(r->minimum));
	return admit_author(k, r->owner, r->author, "arrive", em);
}

/* All that is checked of an envelope before anything of it may run. */
static int arrival_check(
	struct arrival *a, struct request *rq, struct slice envelope, struct errmsg *em)
{
	struct kernel *k = a->k;
	struct resident *r = a->r;
	struct cert_info owner = { 0 };
	uint8_t id[DIGEST_BYTES];
	int64_t asked[LIMIT_COUNT];
	struct envelope parts;
	int rc = envelope_decode(envelope, &parts, em);

	if (rc == 0)
		rc = parts_verify(&parts, &a->hop, em);
	if (rc == 0)
		rc = resident_take_envelope(r, &parts, em);
	if (rc == 0)
		rc = ticket_verify(k, blob_slice(&r->ticket_cose), &r->ticket, id, &owner, em);
	if (owner.name[0])
		cert_keep(&r->owner, &owner);
	if (rc < 0)
		return rc;
	family_is(r, id, a->hop.suffix);
	r->e = a->hop.e;
	r->n = a->hop.n + 1;
	if (memcmp(r->id, a->hop.id, sizeof(r->id)) != 0)
		return err_set(em, ERR_SIGNATURE, "the hop record is another carrier's");
	if (strlen(r->ticket.name) + strlen(r->suffix) > NAME_BYTES_MAX)
		return err_set(em, ERR_NAME, "its name is too long");
	/* A home that gives one name to two tickets must not have one carrier replace the
	 * other. */
	if (resident_find(k, r->name) &&
		memcmp(resident_find(k, r->name)->id, r->id, sizeof(r->id)) != 0)
		return err_set(
			em, ERR_EXISTS, "another carrier of the name %s is here", r->name);
	if (memcmp(r->code_digest, r->ticket.code, DIGEST_BYTES) != 0)
		return err_set(em, ERR_SIGNATURE, "the code is not what the owner signed");
	rc = chain_verify(k, r, blob_slice(&a->hop_cose), &a->hop, em);
	if (rc == 0)
		rc = family_budget(r, em);
	if (rc == 0)
		rc = seals_arrived(k, r, &a->hop, em);
	if (rc == 0)
		rc = home_agrees(a, em);
	if (rc == 0 && r->hop_count < family_hops(r))
		r->hop_count = family_hops(r); /* the chain can't be talked away */
	if (rc == 0 && !r->ticket.itinerant && !path_is_suffix(r->path, r->ticket.path))
		rc = err_set(em, ERR_DENIED, "the path is not what the owner signed");
	if (rc == 0 && a->hop.kind == 1)
		return 0;
	if (rc == 0)
		rc = arrival_code(k, rq, r, em);
	if (rc == 0)
		rc = admit_check(k, r->owner, "arrive", !resident_find(k, r->name), em);
	if (rc == 0) {
		family_asked(r, asked);
		rc = admit_limits(k, asked, r->minimum, r->usage.limit, em);
	}
	if (rc == 0 && ++r->hop_count > (uint64_t)r->usage.limit[LIMIT_hops])
		rc = err_set(em, ERR_LIMIT, "limit hops: %s grants %lld", k->config.name,
			(long long)r->usage.limit[LIMIT_hops]);
	if (rc == 0 && (int64_t)envelope.n > r->usage.limit[LIMIT_state] + (int64_t)(1 << 20))
		rc = err_set(
			em, ERR_LIMIT, "limit state: the envelope has %zu bytes", envelope.n);
	if (rc == 0 && !resident_find(k, r->name))
		rc = account_room(k, r->owner->name, (int64_t)envelope.n, em);
	return rc;
}

/* Has this kernel seen a later departure of it, so that this record can only be a replay? */
static bool replayed(struct kernel *k, const struct hop *hop)
{
	struct resident *r = resident_by_id(k, hop->id);
	struct tos_value *m;
	struct incarnation e;
	bool yes = false;

	if (r && incarnation_compare(&r->e, &hop->e) == 0 &&
		(r->state != SHELL_DEPARTING || hop->n < r->n))
		return true;
	m = gone_find(k, hop->id);
	if (incarnation_read(tos_get(m, "e"), &e) == 0)
		yes = incarnation_compare(&e, &hop->e) == 0 &&
		      (int64_t)hop->n <= tos_get_int(m, "n", -1);
	tos_value_free(m);
	return yes;
}

/* The answer that was given to this record: ERR_NOT_FOUND if none was. What the journal can't say just now
 * may have been "accepted". */
static int answer_find(struct kernel *k, const struct buf *key, struct tos_value **out)
{
	AUTOBUF body = BUF_MAX(65536);
	int rc;

	if (map_find(k->fast_taken, key->data, key->len)) {
		*out = answer_map("accepted", 0, "");
		return 0;
	}
	rc = FAULT_FAILS(FAULT_ANSWER_LOOKED)
		     ? ERR_STORE
		     : store_get(k->store, T_ANSWER, key->data, key->len, &body, NULL);
	return rc < 0 ? rc : tos_decode(body.data, body.len, 0, out);
}

/* The same record was answered before: the same answer again. Where that is not to be known there is none:
 * the record comes again. */
static bool answered_before(struct kernel *k, struct request *rq, const struct buf *key)
{
	struct tos_value *m = NULL;
	int rc = answer_find(k, key, &m);

	if (rc == ERR_NOT_FOUND)
		return false;
	if (rc < 0) {
		request_fail(rq, ERR_STORE, "whether it was answered before can't be read");
		return true;
	}
	metric_add(k->metrics, "answers_repeated_total", NULL, 1);
	request_ok(rq, m);
	FAULT_AT(ANSWER_REPEATED);
	return true;
}

static void arrival_outcome(struct arrival *a);

static struct arrival *arrival_of(struct kernel *k, const struct hop *hop)
{
	struct arrival *a;
	size_t it = 0;

	while ((a = map_next(k->arrivals, &it, NULL, NULL)))
		if (memcmp(a->hop.id, hop->id, DIGEST_BYTES) == 0)
			return a;
	return NULL;
}

/* The record is the sender's, and for us; what is not is audited. */
static int hop_verify(struct kernel *k, const struct request *rq, struct slice cose,
	struct hop *hop, struct errmsg *em)
{
	struct cert_info who;
	struct trust trust;
	struct tos_value *m;
	int rc;

	kernel_trust(k, &trust);
	rc = record_verify(&trust, cose, hop, &who, em);
	if (rc == 0 && (who.kind != CERT_KERNEL || strcmp(who.name, hop->from) != 0 ||
			       strcmp(rq->from.kernel, hop->from) != 0))
		rc = err_set(em, ERR_SIGNATURE, "the hop record was not signed by %s",
			rq->from.kernel);
	if (rc == 0 && strcmp(hop->dest, k->config.name) != 0)
		rc = err_set(em, ERR_DENIED, "the hop record names another destination, %s",
			hop->dest);
	if (rc == 0)
		return 0;
	m = tos_map();
	tos_set(m, "from", tos_text(rq->from.kernel));
	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(err_show(rc, em)));
	audit_refusal(k, NULL, rq->from.kernel, "hop-record-refused", m);
	return rc;
}

/* Takes rq along as one that waits for the answer to a. */
static void arrival_join(struct arrival *a, struct request *rq)
{
	struct waiting_request *w = mem_new(struct waiting_request);

	w->rq = rq;
	list_add(&a->requests, &w->node);
}

/* The answer is known, or under way, or not to be had just now: rq is taken care of. */
static bool answered_otherwise(
	struct kernel *k, struct request *rq, const struct arrival *a, bool rebooted)
{
	struct arrival *under_way;

	if (!rebooted && answered_before(k, rq, &a->key))
		return true;
	under_way = map_find(k->arrivals, a->key.data, a->key.len);
	if ((!under_way && arrival_of(k, &a->hop)) ||
		(under_way && under_way->n_waiting >= REPEATS_MAX)) {
		/* Two departures of one carrier at once: one has to be settled first. */
		request_fail(rq, ERR_STATE, "an arrival of this carrier is under way");
		return true;
	}
	if (!under_way)
		return false;
	/* Only its answer is waited for: what came along once more is not kept. */
	tos_value_free(rq->elements);
	rq->elements = NULL;
	rq->args = NULL;
	arrival_join(under_way, rq);
	under_way->n_waiting++;
	return true;
}

/* Answered by what its record says alone. */
static bool answered_by_record(struct arrival *a, bool rebooted)
{
	const struct resident *old;

	if (superseded(a->k, &a->hop)) {
		arrival_answer(
			a, "superseded", ERR_SUPERSEDED, "a higher incarnation is known here");
		return true;
	}
	if (rebooted) {
		arrival_answer(a, "unknown", ERR_UNKNOWN, "this kernel restarted since");
		return true;
	}
	old = resident_by_id(a->k, a->hop.id);
	if ((old && old->quarantined) || !replayed(a->k, &a->hop))
		return false;
	arrival_refuse(a, ERR_REPLAY, "a later departure of this carrier is known here");
	return true;
}

/* Along with the record, or uploaded before it; empty: neither. */
static struct slice envelope_find(struct kernel *k, const struct request *rq)
{
	const uint8_t *digest;
	struct slice envelope;
	size_t n;

	envelope.p = tos_get_bytes(rq->args, "envelope", &envelope.n);
	if (envelope.n)
		return envelope;
	digest = tos_get_bytes(rq->args, "envelope_digest", &n);
	return digest && n == DIGEST_BYTES ? upload_find(k, digest, &rq->from)
					   : (struct slice){ NULL, 0 };
}

/* Whether a copy of it that was here, or that this store has forgotten, stands in its way; then it has
 * its answer. */
static bool answered_by_others(struct arrival *a)
{
	struct kernel *k = a->k;
	/* An answer to it may have been forgotten with what this store has lost. */
	int rc = restored_vet(k, &a->hop, a->r->ticket.home, a->r->name);
	struct resident *old;

	if (rc == ERR_SUPERSEDED) {
		arrival_answer(a, "superseded", ERR_SUPERSEDED, "it has moved on since");
		return true;
	}
	old = resident_by_id(k, a->hop.id);
	if (rc < 0 || (old && old->quarantined)) {
		arrival_no_answer(a, ERR_STATE,
			"this store was restored; the carrier's home is being asked");
		return true;
	}
	if (!old || incarnation_compare(&old->e, &a->hop.e) >= 0)
		return false;
	/* Only the home raises an incarnation: it is asked before our copy gives way. When it knows
	 * of this one it ends ours, and the repeat of this record finds room. */
	home_report(old);
	arrival_no_answer(a, ERR_STATE, "a lower incarnation is here; its home is being asked");
	return true;
}

static void arrival_go_on(struct arrival *a)
{
	struct slice hop = blob_slice(&a->hop_cose);
	struct kernel *k = a->k;

	if (!records_push(&a->r->hops, hop)) {
		arrival_no_answer(a, ERR_NOMEM, "there is no memory for its chain");
		return;
	}
	rate_init(&a->r->post_rate, a->r->usage.limit[LIMIT_posts], clock_ms());
	rate_init(&a->r->log_rate, LINES_PER_S, clock_ms());
	if (a->hop.kind == 1) {
		FAULT_AT(OUTCOME_TAKEN);
		arrival_outcome(a);
		return;
	}
	FAULT_AT(ARRIVE_CHECKED);
	resident_trail(a->r, "arrived", a->hop.from, "");
	if (ext_hook(k->exts, TOS_INBOX_ON_ARRIVAL, 0))
		hooks_run(k, a->r, TOS_INBOX_ON_ARRIVAL, k->config.name, a->hop.from,
			on_arrival_hooks, a);
	else
		on_arrival_hooks(k, a, 0, "");
}

/* With rq among those that wait for its answer. */
static void arrival_look(struct arrival *a, struct request *rq)
{
	struct errmsg em = { "" };
	struct slice envelope = envelope_find(a->k, rq);
	int rc;

	if (!envelope.n) {
		arrival_no_answer(a, ERR_NOT_FOUND, "the envelope did not come along");
		return;
	}
	rc = arrival_check(a, rq, envelope, &em);
	if (rc == ERR_NOT_FOUND || rc == ERR_STATE)
		/* The code, which was believed to be here; or, at the home, what is being journaled of
		 * its parent. No answer yet, the record comes again. */
		arrival_no_answer(a, rc, err_show(rc, &em));
	else if (rc < 0)
		arrival_refuse(a, rc, err_show(rc, &em));
	else if (!answered_by_others(a))
		arrival_go_on(a);
}

static void send_verb(struct kernel *k, struct request *rq)
{
	struct arrival *a = mem_new(struct arrival);
	struct errmsg em = { "" };
	struct slice hop_cose;
	bool rebooted;
	int rc;

	FAULT_AT(HOP_TAKEN);
	restored_see(k, rq->from.kernel, rq->args);
	hop_cose.p = tos_get_bytes(rq->args, "hop", &hop_cose.n);
	a->k = k;
	a->r = resident_new(k);
	list_init(&a->requests);
	list_init(&a->late);
	rc = hop_verify(k, rq, hop_cose, &a->hop, &em);
	if (rc < 0) {
		arrival_free(a);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	answer_key(&a->key, a->hop.id, a->hop.suffix, &a->hop.e, a->hop.n);
	/* What was accepted from a --fast carrier before a restart is gone: said before the
	 * journal's answer is repeated. */
	rebooted =
		a->hop.has_boot && memcmp(a->hop.boot, k->boot_nonce, sizeof(a->hop.boot)) != 0;
	if (answered_otherwise(k, rq, a, rebooted)) {
		arrival_free(a);
		return;
	}
	arrival_join(a, rq);
	map_put(k->arrivals, a->key.data, a->key.len, a);
	blob_set(&a->hop_cose, hop_cose);
	if (!answered_by_record(a, rebooted))
		arrival_look(a, rq);
}

static void outcome_taken(void *arg, int rc, const struct errmsg *em)
{
	struct arrival *a = arg;
	struct home_record *h = home_find(a->k, a->r->name);

	FAULT_AT(OUTCOME_JOURNALED);
	if (h)
		home_end(a->k, h, rc);
	if (rc < 0) {
		arrival_no_answer(a, rc, err_show(rc, em));
		return;
	}
	arrival_answer(a, "accepted", 0, "");
	FAULT_AT(OUTCOME_ANSWERED);
}

/* Does the outcome come from where the carrier is? A kernel that had it once has a chain that
 * verifies, too: but that does not pass the place that the home has heard of since. */
static bool outcome_of_holder(const struct home_record *h, const struct arrival *a)
{
	return strcmp(h->kernel, a->hop.from) == 0 || evidence_passes(h, &a->r->hops, &a->hop);
}

/* A finished carrier comes home: its outcome is journaled with the answer. */
static void arrival_outcome(struct arrival *a)
{
	struct kernel *k = a->k;
	struct home_record *h = home_find(k, a->r->name);
	struct errmsg em = { "" };
	struct store_txn *t;
	struct tos_value *m;
	int rc;

	if (!h)
		h = home_adopt(k, a->r, &a->hop);
	if (!h && family_arrived(k, a->r, &h, &em) == ERR_STATE) {
		arrival_no_answer(a, ERR_STATE, em.text);
		return;
	}
	if (!h || memcmp(h->id, a->r->id, DIGEST_BYTES) != 0) {
		arrival_refuse(a, ERR_UNKNOWN, "this is not its home, or its home forgot it");
		return;
	}
	forced_take(k, h, forced_act(&a->r->trail, &a->hop.e), &a->hop.e);
	/* The outcome that was taken is repeated from the journal; no other replaces it. */
	if (shell_ended(h->state) || incarnation_compare(&a->hop.e, &h->e) < 0) {
		arrival_answer(a, "superseded", ERR_SUPERSEDED, "it has ended otherwise");
		return;
	}
	if (home_busy(h)) {
		/* A raise must not overtake an end, nor the other way round. */
		arrival_no_answer(a, ERR_STATE, "something else of it is being journaled");
		return;
	}
	if (incarnation_compare(&a->hop.e, &h->e) > 0 || !outcome_of_holder(h, a)) {
		arrival_refuse(a, ERR_REPLAY, "its home knows it to be elsewhere");
		return;
	}
	m = audit_carrier(a->r, a->hop.n);
	tos_set(m, "from", tos_text(a->hop.from));
	t = store_begin(k->store);
	journal_put(t, T_ANSWER, &a->key, answer_map("accepted", 0, ""),
		a->r->ticket.expires_ms + KEEP_AFTER_MS);
	home_close(h, SHELL_FINISHED, outcome_of(a->r));
	home_put(t, h);
	audit_event(k, t, "finished", m);
	FAULT_AT(OUTCOME_COMMIT);
	rc = store_commit(t, outcome_taken, a);
	if (rc < 0) {
		home_end(k, h, rc);
		arrival_no_answer(a, rc, err_text(rc));
	}
}

void came_from(const struct resident *r, char out[64])
{
	out[0] = 0;
	for (size_t i = records_n(&r->hops); i > 0 && !out[0]; i--) {
		struct hop hop = { .parts = NULL };
		struct slice bytes = records_at(&r->hops, i - 1);

		if (record_hop(bytes, &hop, NULL) == 0) {
			if (hop.kind == HOP_CLONE)
				i = 1; /* it was made here: who brought its parent had no copy of it */
			else if (strcmp(hop.from, r->k->config.name) != 0)
				snprintf(out, 64, "%s", hop.from);
		}
		hop_fini(&hop);
	}
}

static void void_refuse(struct kernel *k, struct request *rq, const char *name)
{
	struct tos_value *m = tos_map();

	tos_set(m, "carrier", tos_text(name));
	tos_set(m, "from", tos_text(rq->from.kernel));
	audit_refusal(k, NULL, rq->from.kernel, "void-refused", m);
	request_fail(rq, ERR_DENIED, "%s did not come from %s", name, rq->from.kernel);
}

struct void_passed {
	struct kernel *k;
	struct request *rq;
	char dest[64];
};

static void void_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct void_passed *v = arg;

	if (rc < 0) {
		request_fail(v->rq, rc, "%s", err_show(rc, em));
		return;
	}
	request_ok(v->rq, NULL);
	handoff_void_due(v->k, v->dest);
}

/* The copy went on from here, or may have: whoever was given it is told before the sender may
 * forget it. */
static void void_pass(struct kernel *k, struct request *rq, const struct buf *key,
	const struct incarnation *e, const char *dest, int64_t expires_ms)
{
	struct void_passed *v = mem_new(struct void_passed);
	struct store_txn *t = store_begin(k->store);
	struct errmsg em = { "" };
	int rc;

	v->k = k;
	v->rq = rq;
	snprintf(v->dest, sizeof(v->dest), "%s", dest);
	void_put(t, key, e, dest, expires_ms);
	rc = store_commit(t, void_saved, v);
	if (rc < 0)
		void_saved(v, rc, &em);
}

/* An arrival that is just being judged came from there, or is of a carrier whose home that is. */
static bool void_of_arrival(struct kernel *k, const uint8_t id[DIGEST_BYTES], const char *who)
{
	struct arrival *a;
	size_t it = 0;

	while ((a = map_next(k->arrivals, &it, NULL, NULL)))
		if (memcmp(a->hop.id, id, DIGEST_BYTES) == 0)
			return strcmp(a->hop.from, who) == 0 ||
			       (a->r && strcmp(a->r->ticket.home, who) == 0);
	return false;
}

static void void_verb(struct kernel *k, struct request *rq)
{
	AUTOBUF key = BUF_INIT;
	const char *who = rq->from.kernel, *name, *home;
	struct tos_value *gone;
	char from[64] = "", dest[64] = "";
	struct incarnation e, was;
	struct resident *r;
	size_t n;
	const uint8_t *id = tos_get_bytes(rq->args, "id", &n);
	int64_t expires = clock_wall_ms() + KEEP_AFTER_MS;

	FAULT_AT(VOID_TAKEN);
	if (!id || n != DIGEST_BYTES || incarnation_read(tos_get(rq->args, "e"), &e) < 0) {
		request_fail(rq, ERR_MALFORMED, "VOID lacks id or e");
		return;
	}
	buf_add(&key, id, n);
	r = resident_by_id(k, id);
	gone = gone_find(k, id);
	/* Only its source went on without it, or its home knows better. */
	name = r ? r->name : tos_get_text(gone, "name", "");
	home = r ? r->ticket.home : tos_get_text(gone, "home", "");
	if (r)
		came_from(r, from);
	else
		snprintf(from, sizeof(from), "%s", tos_get_text(gone, "from", ""));
	if (name[0] && strcmp(home, who) != 0 && strcmp(from, who) != 0) {
		void_refuse(k, rq, name);
		tos_value_free(gone);
		return;
	}
	if (!name[0] && !void_of_arrival(k, id, who)) {
		/* Nothing is here that could be void, and nothing is on its way: done. What
		 * anybody may say of a carrier that never came is not remembered. */
		request_ok(rq, NULL);
		return;
	}
	incarnation_learn(k, id, &e, r ? r->ticket.expires_ms : 0);
	if (r && incarnation_compare(&r->e, &e) < 0) {
		if (r->state == SHELL_DEPARTING && !r->outcome_move)
			snprintf(dest, sizeof(dest), "%s", r->dest);
		resident_end(
			r, SHELL_EV_SUPERSEDE, "the source went on with a higher incarnation");
	} else if (!r && gone && incarnation_read(tos_get(gone, "e"), &was) == 0 &&
		   incarnation_compare(&was, &e) < 0 &&
		   strcmp(tos_get_text(gone, "dest", ""), home) != 0) {
		snprintf(dest, sizeof(dest), "%s", tos_get_text(gone, "dest", ""));
	}
	if (dest[0])
		void_pass(k, rq, &key, &e, dest, expires);
	else
		request_ok(rq, NULL);
	tos_value_free(gone);
}

/* The home's wanted state. */
static void command_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	struct resident *r = resident_find(k, name);
	struct incarnation e;
	bool has_e = incarnation_read(tos_get(rq->args, "e"), &e) == 0;
	struct tos_value *out = tos_map();

	FAULT_AT(COMMAND_TAKEN);
	if (!r || strcmp(r->ticket.home, rq->from.kernel) != 0) {
		tos_value_free(out);
		request_fail(rq, ERR_NOT_FOUND, "%s is not at %s", name, k->config.name);
		return;
	}
	if (has_e && !r->asking && incarnation_compare(&r->e, &e) < 0 &&
		strcmp(tos_get_text(rq->args, "wanted", ""), "retry") != 0) {
		resident_end(r, SHELL_EV_SUPERSEDE, "its home knows a higher incarnation");
	} else if (r->state == SHELL_DEPARTING &&
		   strcmp(tos_get_text(rq->args, "wanted", ""), "retry") != 0) {
		/* A copy that counts as sent: the command goes with it, the home repeats it
		 * there. */
		tos_set(out, "departing", tos_text(r->dest));
	} else {
		resident_wanted(r, tos_get_text(rq->args, "wanted", ""), has_e ? &e : NULL);
	}
	r = resident_find(k, name);
	tos_set(out, "state", tos_text(r ? shell_state_word(r->state) : "gone"));
	request_ok(rq, out);
}

/* Of one that is not here: where it went, how it ended, or that nothing is known of it. */
static void holds_not(
	struct kernel *k, const char *name, const struct buf *key, struct tos_value *out)
{
	AUTOBUF row = BUF_MAX((size_t)512 << 20);
	struct tos_value *m = gone_find(k, key->data);

	if (home_ended_waits(k, name)) {
		tos_set(out, "state", tos_text("ended"));
	} else if (!gone_is_late(k, key->data) &&
		   store_get(k->store, T_RESIDENT, key->data, key->len, &row, NULL) !=
			   ERR_NOT_FOUND) {
		/* A row that could not be loaded is kept, and so is the carrier. */
		tos_set(out, "state", tos_text("kept"));
	} else if (m) {
		tos_set(out, "state", tos_text("gone"));
		tos_set(out, "dest", tos_text(tos_get_text(m, "dest", "")));
		tos_set(out, "n", tos_int(tos_get_int(m, "n", 0)));
		if (tos_get(m, "e"))
			tos_set(out, "e", tos_value_copy(tos_get(m, "e")));
	} else {
		tos_set(out, "state", tos_text("unknown"));
	}
	tos_value_free(m);
}

/* The home asks whether we hold it; and says if it is in doubt towards a kernel that was
 * declared dead there. */
static void holds_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	const char *dead = tos_get_text(rq->args, "dead", "");
	struct resident *r = resident_find(k, name);
	AUTOBUF key = BUF_INIT;
	struct tos_value *out;
	size_t n;
	const uint8_t *id = tos_get_bytes(rq->args, "id", &n);

	if (!id || n != DIGEST_BYTES) {
		request_fail(rq, ERR_MALFORMED, "HOLDS lacks id");
		return;
	}
	out = tos_map();
	buf_add(&key, id, n);
	if (r && memcmp(r->id, id, n) == 0) {
		tos_set(out, "state", tos_text(shell_state_word(r->state)));
		tos_set(out, "n", tos_int((int64_t)r->n));
		if (r->state == SHELL_DEPARTING) {
			tos_set(out, "dest", tos_text(r->dest));
			if (strcmp(r->dest, dead) == 0 && r->in_doubt && !r->asking &&
				(!rq->from.kernel[0] ||
					strcmp(r->ticket.home, rq->from.kernel) == 0))
				resolve_begin(r, NULL);
		}
	} else {
		holds_not(k, name, &key, out);
	}
	request_ok(rq, out);
}

const struct verb handoff_verbs[] = {
	{ "OFFER", offer_verb },
	{ "SEND", send_verb },
	{ "VOID", void_verb },
	{ "COMMAND", command_verb },
	{ "HOLDS", holds_verb },
	{ "KNOWN", known_verb },
	{ NULL, NULL },
};
