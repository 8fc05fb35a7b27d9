/*
 * The source's side of the hand-off (doc/protocol.md, "Hand-off"): offer, journal, send, drop; and
 * what becomes of a departure whose answer does not come.
 *
 * The source journals before it acts. Once the hop record has been given to the link, and always
 * after a restart, the copy counts as sent: only the destination's answer or a higher incarnation
 * frees it.
 */
#include "kernel/handoff/evidence.h"
#include "kernel/carrier/family.h"
#include "kernel/handoff/departure.h"
#include "kernel/handoff/forced.h"
#include "kernel/handoff/gone.h"
#include "kernel/handoff/handoff.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/path.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/resident.h"
#include "kernel/carrier/seals.h"
#include "kernel/carrier/vms.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/report.h"
#include "kernel/handoff/restored.h"
#include "kernel/upload.h"
#include "kernel/home/home.h"
#include "seal/records.h"
#include "tos/extension.h"

/* up to this, code and envelope travel within the post */
#define INLINE_BYTES ((size_t)600 << 10)
#define ENVELOPE_MAX ((size_t)160 << 20)

enum move_stage {
	MOVE_HOOKS,
	MOVE_OFFERED,
	MOVE_JOURNAL,
	MOVE_SENDING,
	MOVE_SENT,
	MOVE_STAGES
};

struct move {
	struct request *rq; /* Mobility's MOVE; NULL for an outcome and for a repeat */
	enum move_stage stage;
	char dest[64];
	bool entry, need_code;
	uint32_t timeout_ms;
	uint64_t call;
	int64_t began_ms, took_ms[MOVE_STAGES], stage_ms;
	size_t bytes_code, bytes_envelope;
};

static void send_now(struct resident *r);

/* ---- whom a destination took before, so that it need not be asked first */

#define TOOK_MAX       1000
#define TOOK_BYTES_MAX ((size_t)64 << 10)
#define TOOK_HEARD_MS  1000

struct took {
	int64_t at_ms;
};

static struct took *took_find(struct peer *p, const void *key, size_t n)
{
	return p ? map_find(p->took, key, n) : NULL;
}

static void took_note(struct peer *p, const void *key, size_t n)
{
	struct took *t = took_find(p, key, n);

	if (!t && p && p->link && map_size(p->took) < TOOK_MAX) {
		t = mem_new(struct took);
		map_put(p->took, key, n, t);
	}
	if (t)
		t->at_ms = clock_ms();
}

static void took_drop(struct peer *p)
{
	struct took *t;
	const void *key;
	size_t it = 0, n;

	while ((t = map_next(p->took, &it, &key, &n))) {
		map_del(p->took, key, n);
		free(t);
	}
}

static bool wants_a_minimum(const struct resident *r)
{
	for (int i = 0; i < LIMIT_COUNT; i++)
		if (r->minimum[i] >= 0)
			return true;
	return false;
}

/* What would be offered is small, and its destination, heard of just now, took another of this owner
 * a while ago, or this very code if that has demands: the record itself is the offer. A refusal is
 * the same then, and costs one departure number. */
static bool offer_needless(struct resident *r)
{
	struct peer *p = peer_get(r->k, r->move->dest);
	struct took *t = took_find(p, r->owner->name, strlen(r->owner->name));
	int64_t now = clock_ms();

	if (!t || !p->link || now - t->at_ms >= r->k->config.offer_again_ms ||
		now - link_heard_ms(p->link) >= TOOK_HEARD_MS ||
		r->briefcase.n + r->state_bytes.n + r->code.n > TOOK_BYTES_MAX)
		return false;
	r->move->need_code = !took_find(p, r->code_digest, DIGEST_BYTES);
	return !(r->move->need_code && wants_a_minimum(r));
}

static void move_free(struct move *mv)
{
	if (mv) {
		if (mv->rq)
			request_fail(mv->rq, ERR_CANCELLED, "the carrier has ended");
		free(mv);
	}
}

void move_cancel(struct resident *r)
{
	struct move *mv = r->move;

	r->move = NULL;
	if (mv) {
		call_cancel(r->k, mv->call);
		move_free(mv);
	}
}

/* Nothing was committed, or the destination refused: the carrier stays. */
static void move_failed(struct resident *r, int rc, const char *text)
{
	struct move *mv = STEAL(r->move);
	char label[48];

	snprintf(label, sizeof(label), "code=\"%s\"", err_word(rc));
	metric_add(r->k->metrics, "moves_failed_total", label, 1);
	log_notice("move failed", KV_STR("carrier", r->name), KV_STR("dest", mv->dest),
		KV_STR("error", err_word(rc)), KV_STR("reason", text));
	if (mv->rq)
		request_fail(STEAL(mv->rq), rc, "%s", text);
	move_free(mv);
}

/* The resident whose move this callback belongs to, or NULL if that is over. */
static void move_stage(struct move *mv, enum move_stage to)
{
	int64_t now = clock_ms();

	if (mv->stage_ms)
		mv->took_ms[mv->stage] += now - mv->stage_ms;
	mv->stage = to;
	mv->stage_ms = now;
}

static struct resident *moving(struct kernel *k, const char *name, enum move_stage stage)
{
	struct resident *r = resident_find(k, name);

	return r && r->move && r->move->stage == stage ? r : NULL;
}

/* What the move cost: bytes by part, and where the time went. */
static void log_moved(struct resident *r, struct move *mv)
{
	move_stage(mv, mv->stage);
	log_info("moved", KV_STR("carrier", r->name), KV_STR("dest", mv->dest),
		KV_INT("bytes_code", mv->bytes_code),
		KV_INT("bytes_envelope", mv->bytes_envelope),
		KV_INT("bytes_state", r->state_bytes.n),
		KV_INT("bytes_briefcase", r->briefcase.n),
		KV_INT("ms", clock_ms() - mv->began_ms),
		KV_INT("hooks_ms", mv->took_ms[MOVE_HOOKS]),
		KV_INT("offer_ms", mv->took_ms[MOVE_OFFERED]),
		KV_INT("journal_ms", mv->took_ms[MOVE_JOURNAL]),
		KV_INT("send_ms", mv->took_ms[MOVE_SENDING]),
		KV_INT("answer_ms", mv->took_ms[MOVE_SENT]));
}

/* The destination has it: journal gone, drop our copy, show the record to the home. */
void move_accepted(struct resident *r)
{
	struct kernel *k = r->k;
	struct move *mv = STEAL(r->move);
	bool fast = r->fast_move;
	struct store_txn *t = fast ? kernel_lazy(k) : store_begin(k->store);
	uint64_t n = r->n - 1;
	struct gone_late *gone;
	struct tos_value *m = audit_carrier(r, n);
	char dest[64];

	snprintf(dest, sizeof(dest), "%s", r->dest);
	tos_set(m, "dest", tos_text(dest));
	resident_event(r, r->outcome_move ? SHELL_EV_FINISH : SHELL_EV_ACCEPTED, NULL);
	vm_abandon(r);
	r->moved += (int64_t)(r->envelope.n + (mv ? mv->bytes_code : 0));
	account_charge(fast ? NULL : t, r);
	gone = gone_put(t, r, n, dest);
	if (!fast)
		resident_del(t, r);
	audit_event(k, t, r->outcome_move ? "outcome-delivered" : "departed", m);
	/* Of a fast one the home hears from its next place alone. */
	if (!fast) {
		if (!r->outcome_move)
			home_report_gone(t, r, n, dest);
		FAULT_AT(DROP_COMMIT);
		gone_commit(t, gone);
		FAULT_AT(DROP_COMMITTED);
	}
	metric_add(k->metrics, "moves_total", NULL, 1);
	if (!r->outcome_move) {
		took_note(peer_get(k, dest), r->owner->name, strlen(r->owner->name));
		took_note(peer_get(k, dest), r->code_digest, DIGEST_BYTES);
	}
	if (mv) {
		log_moved(r, mv);
		if (mv->rq)
			request_ok(STEAL(mv->rq), NULL);
		move_free(mv);
	}
	router_forward_held(k, r, dest);
	resident_free(r);
}

/* Back from a departure that did not come about. Where its process died meanwhile (or this
 * whole kernel did) there is no run to go on with: it begins again. */
static void departure_over(struct resident *r)
{
	resident_want_link(r, false);
	/* What the home wanted of a departing copy is told again. */
	r->report_due = true;
	r->report_at_ms = 0;
	resident_event(r, SHELL_EV_RETURNED, NULL);
	resident_uncollect(r);
	if (r->vm || r->completed) {
		resident_event(r, SHELL_EV_START, NULL);
		return;
	}
	r->via_go = false;
	r->go_seq = 0;
	resident_go_on(r);
}

/* The record never left: nothing is in doubt. Its number is given back, because only memory knows
 * that it was used: the home must not be told of it, for a crash makes the departure that is in the
 * journal go on. */
static void departure_undone(struct resident *r)
{
	r->n--;
	r->sent = false;
	departure_over(r);
}

/* It came back in the same run: tos.go returns, a path goes on with its next choice. */
static void move_refused(struct resident *r, int rc, const char *text)
{
	struct store_txn *t;
	bool outcome = r->outcome_move, doubt = r->in_doubt;
	struct peer *p = peer_get(r->k, r->dest);

	resident_trail(r, "refused", r->dest, text);
	if (p)
		free(map_del_str(p->took, r->owner->name));
	r->in_doubt = r->sent = r->outcome_move = false;
	departure_over(r);
	t = store_begin(r->k->store);
	resident_put(t, r);
	FAULT_AT(RETURN_COMMIT);
	store_commit(t, NULL, NULL);
	if (outcome) {
		resident_fault(r, rc, text, "");
		return;
	}
	if (doubt)
		home_report(r);
	if (r->move)
		move_failed(r, rc, text);
	else if (r->via_go && r->vm) {
		vm_done(r, r->go_seq, rc, text);
		r->via_go = false;
		r->go_seq = 0;
	} else if (r->completed) {
		r->ask_again_ms = 0; /* Mobility left it to us while it was in doubt */
	}
	resident_deliver_held(r);
}

static void move_doubt(struct resident *r, const char *text);

/* What the destination said, now or on a repeat. */
static void move_answer(struct resident *r, const struct tos_value *answer)
{
	const char *word = tos_get_text(answer, "answer", "");
	const char *code = tos_get_text(answer, "code", "refused");
	AUTOFREE char *text = mem_strdup(tos_get_text(answer, "text", ""));

	FAULT_AT_EITHER(r->outcome_move, OUTCOME_ACKED, ANSWER_TAKEN);
	if (r->asking) /* set aside until the home has said whose the carrier is */
		move_doubt(r, "its home is being asked");
	else if (strcmp(word, "accepted") == 0)
		move_accepted(r);
	else if (strcmp(word, "refused") == 0)
		move_refused(r, err_from_word(code, strlen(code)), text);
	else if (strcmp(word, "superseded") == 0)
		resident_end(r, SHELL_EV_SUPERSEDE,
			"a higher incarnation is known at the destination");
	else if (strcmp(word, "unknown") == 0 && r->ticket.fast)
		resident_end(
			r, SHELL_EV_LOSE, "the destination restarted while it moved (--fast)");
	else
		move_doubt(r, "the destination's answer makes no sense");
}

static void move_doubt(struct resident *r, const char *text)
{
	struct move *mv = STEAL(r->move);

	FAULT_AT(DOUBT);
	if (!r->in_doubt) {
		r->in_doubt = true;
		r->ask_at_ms = r->ask_pause_ms = 0;
		resident_want_link(r, true);
		metric_add(r->k->metrics, "moves_in_doubt_total", NULL, 1);
		log_warning(
			"move in doubt: the destination has not answered; it is asked again when it is back",
			KV_STR("carrier", r->name), KV_STR("dest", r->dest),
			KV_STR("reason", text));
		if (!r->outcome_move)
			home_report(r);
	}
	r->resend_at_ms = clock_ms() + r->k->config.retry_ms;
	if (mv) {
		if (mv->rq)
			request_fail(STEAL(mv->rq), ERR_IN_DOUBT, "%s", text);
		move_free(mv);
	}
}

struct departure *departure_new(const struct resident *r)
{
	struct departure *d = mem_new(struct departure);

	d->n = r->n;
	d->e = r->e;
	snprintf(d->name, sizeof(d->name), "%s", r->name);
	return d;
}

struct resident *departing(struct kernel *k, const struct departure *d)
{
	struct resident *r = resident_find(k, d->name);

	return r && r->state == SHELL_DEPARTING && r->n == d->n &&
			       incarnation_compare(&r->e, &d->e) == 0
		       ? r
		       : NULL;
}

static void on_sent(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct departure *d = arg;
	bool sent = k->ending_call_sent;
	struct resident *r = departing(k, d);

	if (r)
		restored_see(k, r->dest, tos_at(elements, 0));
	if (!r)
		return;
	r->resending = false;
	if (r->move)
		r->move->call = 0;
	r->sent |= sent;
	if (rc == 0) {
		move_answer(r, tos_at(elements, 0));
	} else if (rc == ERR_NOT_FOUND && r->move && !r->move->need_code) {
		r->move->need_code = true; /* it had the code, and has lost it */
		send_now(r);
	} else if (r->sent || r->outcome_move) {
		move_doubt(r, text);
	} else {
		departure_undone(r);
		if (r->move)
			move_failed(r, ERR_UNREACHABLE, text);
	}
}

/* The bundle as its author signed it; empty where neither memory nor the store has it. */
static struct slice author_code(struct resident *r)
{
	struct code *code = map_find(r->k->codes, r->code_digest, DIGEST_BYTES);

	if (!code && !r->code_changed)
		return blob_slice(&r->code);
	if (!code)
		code = code_find(r->k, r->code_digest, NULL);
	return code ? blob_slice(&code->bundle) : (struct slice){ NULL, 0 };
}

static void send_post(struct resident *r, bool inline_code, bool inline_envelope)
{
	struct tos_value *args = tos_map();
	uint8_t digest[DIGEST_BYTES];
	struct slice code = author_code(r);
	uint64_t call;

	tos_set(args, "hop", tos_bytes(r->hop_cose.p, r->hop_cose.n));
	restored_stamp(r->k, args);
	if (inline_envelope) {
		tos_set(args, "envelope", tos_bytes(r->envelope.p, r->envelope.n));
	} else {
		digest_bytes(r->envelope.p, r->envelope.n, digest);
		tos_set(args, "envelope_digest", tos_bytes(digest, sizeof(digest)));
	}
	if (inline_code && code.n)
		tos_set(args, "code", tos_bytes(code.p, code.n));
	r->resending = true;
	call = kernel_call(r->k, r->dest, "Handoff", "SEND", args, r->k->config.report_ms,
		on_sent, departure_new(r));
	FAULT_AT_EITHER(r->outcome_move, OUTCOME_SENT, HOP_SENT);
	if (r->move) {
		move_stage(r->move, MOVE_SENT);
		r->move->call = call;
	}
}

static void on_content(struct kernel *k, void *arg, int rc)
{
	AUTOFREE struct departure *d = arg;
	struct resident *r = departing(k, d);

	if (!r)
		return;
	if (rc < 0) {
		r->resending = false;
		if (r->sent || r->outcome_move) {
			move_doubt(r, "the link closed while the envelope was being sent");
		} else {
			departure_undone(r);
			if (r->move)
				move_failed(r, ERR_UNREACHABLE,
					"the link closed while the envelope was being sent");
		}
		return;
	}
	send_post(r, false, false);
}

static void on_code_content(struct kernel *k, void *arg, int rc)
{
	struct resident *r = departing(k, arg);
	uint8_t digest[DIGEST_BYTES];

	if (rc < 0 || !r) {
		on_content(k, arg, rc < 0 ? rc : ERR_CANCELLED);
		return;
	}
	digest_bytes(r->envelope.p, r->envelope.n, digest);
	content_send(k, r->dest, digest, blob_slice(&r->envelope), on_content, arg);
}

/* Send what the destination lacks, and last the hop record. */
static void send_now(struct resident *r)
{
	struct slice code = author_code(r);
	/* After a restart we don't know any more what it lacks: send all. */
	bool need_code = !r->outcome_move && (!r->move || r->move->need_code) && code.n;
	size_t code_bytes = need_code ? code.n : 0;

	if (r->move) {
		move_stage(r->move, MOVE_SENDING);
		r->move->bytes_code = code_bytes;
		r->move->bytes_envelope = r->envelope.n;
	}
	if (code_bytes + r->envelope.n <= INLINE_BYTES) {
		send_post(r, need_code, true);
		return;
	}
	r->resending = true;
	if (need_code)
		content_send(
			r->k, r->dest, r->code_digest, code, on_code_content, departure_new(r));
	else
		on_code_content(r->k, departure_new(r), 0);
}

static void frozen(struct resident *r, int rc, const struct errmsg *em);

static void on_frozen(void *arg, int rc, const struct errmsg *em)
{
	struct resident *r;
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} *ctx = arg;

	r = moving(ctx->k, ctx->name, MOVE_JOURNAL);
	free(ctx);
	if (r && r->state == SHELL_DEPARTING)
		frozen(r, rc, em);
}

static void frozen(struct resident *r, int rc, const struct errmsg *em)
{
	FAULT_AT_EITHER(r->outcome_move, OUTCOME_DEPART_JOURNALED, DEPART_JOURNALED);
	if (rc < 0) {
		departure_undone(r);
		if (r->outcome_move) {
			/* Kept and tried again: the outcome must not be lost for want of a
			 * journal. */
			r->outcome_move = false;
			move_cancel(r);
			return;
		}
		move_failed(r, rc, err_show(rc, em));
		return;
	}
	send_now(r);
}

static int make_hop(struct resident *r, unsigned kind, struct errmsg *em)
{
	struct hop hop = { .kind = kind, .e = r->e, .n = r->n - 1, .time_ms = clock_wall_ms() };
	struct envelope env;
	AUTOBUF payload = BUF_MAX((size_t)8 << 20);
	struct peer *p = peer_get(r->k, r->dest);
	int rc;

	memcpy(hop.id, r->id, sizeof(hop.id));
	snprintf(hop.suffix, sizeof(hop.suffix), "%s", r->suffix);
	snprintf(hop.from, sizeof(hop.from), "%s", r->k->config.name);
	snprintf(hop.dest, sizeof(hop.dest), "%s", r->dest);
	if (r->ticket.fast && kind == 0 && p && p->boot_known &&
		strcmp(r->dest, r->k->config.name) != 0) {
		hop.has_boot = true;
		memcpy(hop.boot, p->boot_nonce, sizeof(hop.boot));
	}
	r->fast_move = handoff_fast(&r->ticket, &hop);
	if (records_n(&r->hops)) {
		struct slice last = records_at(&r->hops, records_n(&r->hops) - 1);

		digest_bytes(last.p, last.n, hop.prev);
	}
	rc = envelope_decode(blob_slice(&r->envelope), &env, em);
	if (rc == 0)
		rc = envelope_digests(&env, &hop.parts, em);
	if (rc == 0) {
		hop.grown = seals_grown(&r->ticket, blob_slice(&r->briefcase));
		hop_encode(&payload, &hop);
		rc = buf_check(&payload);
	}
	if (rc == 0)
		blob_set(&r->hop, slice_buf(&payload));
	hop_fini(&hop);
	return rc;
}

static int sign_hops(
	struct kernel *k, struct resident *const *batch, size_t n, struct errmsg *em)
{
	struct slice hops[BATCH_MAX] = { { NULL, 0 } };
	struct buf out[BATCH_MAX];
	int rc;

	for (size_t i = 0; i < n; i++) {
		hops[i] = blob_slice(&batch[i]->hop);
		out[i] = (struct buf)BUF_MAX((size_t)9 << 20);
	}
	rc = records_sign(k->signer, hops, n, out, em);
	for (size_t i = 0; i < n; i++) {
		if (rc == 0)
			blob_set(&batch[i]->hop_cose, slice_buf(&out[i]));
		blob_free(&batch[i]->hop);
		buf_fini(&out[i]);
	}
	return rc;
}

/* Freeze: n raised, envelope and hop made; from here on it is departing. */
static int freeze(struct resident *r, unsigned kind, struct errmsg *em)
{
	AUTOBUF env = BUF_MAX(ENVELOPE_MAX);
	struct tos_value *path = tos_value_copy(r->path);
	int rc;

	if (r->vm)
		r->usage.used[LIMIT_cpu] = (int64_t)(vm_cpu_us(r) / 1000);
	if (!r->completed)
		resident_collect(r);
	resident_collect_held(r, kind == 0);
	if (r->move->entry && tos_len(path))
		tos_value_free(tos_take_at(path, 0));
	snprintf(r->dest, sizeof(r->dest), "%s", r->move->dest);
	r->outcome_move = kind == 1;
	r->n++;
	clone_forget(r);
	resident_trail(r, kind ? "homewards" : "departed", r->dest, "");
	rc = resident_envelope(r, path, &env);
	tos_value_free(path);
	if (rc < 0)
		return err_set(em, rc, "the envelope cannot be made");
	blob_set(&r->envelope, slice_buf(&env));
	rc = make_hop(r, kind, em);
	return rc < 0 ? rc : resident_event(r, SHELL_EV_DEPART, em);
}

static void departing_commit(struct resident *r)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} * ctx;
	struct errmsg em = { "" };
	struct store_txn *t;
	int rc;

	if (r->fast_move && !r->saved) {
		send_now(r);
		return;
	}
	ctx = mem_zero(sizeof(*ctx));
	t = store_begin(r->k->store);
	ctx->k = r->k;
	snprintf(ctx->name, sizeof(ctx->name), "%s", r->name);
	move_stage(r->move, MOVE_JOURNAL);
	/* Departure 0 of a fast one: no restart may find here what runs elsewhere. */
	if (r->fast_move)
		resident_del(t, r);
	else
		resident_put(t, r);
	FAULT_AT_EITHER(r->outcome_move, OUTCOME_DEPART_COMMIT, DEPART_COMMIT);
	rc = store_commit(t, on_frozen, ctx);
	if (rc < 0)
		on_frozen(ctx, rc, &em);
}

/* ---- signatures, one for as many as are ready */

static void batch_go(struct kernel *k, struct resident *const *batch, size_t n)
{
	struct errmsg em = { "" };
	int rc = sign_hops(k, batch, n, &em);

	if (n > 1)
		metric_add(k->metrics, "hops_batched_total", NULL, n);
	for (size_t i = 0; i < n; i++)
		if (rc < 0)
			frozen(batch[i], rc, &em);
		else
			departing_commit(batch[i]);
}

/* Kernels of version 1 know no batches. */
static bool takes_batches(struct kernel *k, const char *dest)
{
	struct peer *p = peer_get(k, dest);

	return p && p->link && link_version(p->link) >= 2;
}

void handoff_sign(struct kernel *k)
{
	struct resident *batch[BATCH_MAX];
	struct list ready;
	size_t n = 0;

	list_init(&ready);
	list_take(&k->signing, &ready);
	while (!list_empty(&ready)) {
		struct resident *r = LIST_ITEM(ready.next, struct resident, signing);

		list_del(&r->signing);
		if (takes_batches(k, r->dest))
			batch[n++] = r;
		else
			batch_go(k, &r, 1);
		if (n == BATCH_MAX || (n && list_empty(&ready))) {
			batch_go(k, batch, n);
			n = 0;
		}
	}
}

static void sign_later(struct kernel *k, void *arg)
{
	(void)arg;
	handoff_sign(k);
}

/* What comes ready in the same turn shares a signature; and where the journal is busy anyway, so does
 * all that comes until it is done. */
static void depart_signed(struct resident *r)
{
	struct kernel *k = r->k;
	bool first = list_empty(&k->signing);
	struct store_stats st;

	move_stage(r->move, MOVE_JOURNAL);
	list_add(&k->signing, &r->signing);
	store_stats(k->store, &st);
	if ((r->fast_move && !r->saved) || (first && st.queued == 0))
		kernel_later(k, sign_later, NULL);
}

/* From here on there is no way back but by the destination's answer. */
static void depart(struct resident *r)
{
	struct errmsg em = { "" };
	int rc;

	if (r->state != SHELL_RUNNING) {
		move_failed(r, ERR_STATE, "the carrier is not running any more");
		return;
	}
	rc = freeze(r, 0, &em);
	if (rc < 0) {
		resident_uncollect(r);
		move_failed(r, rc, err_show(rc, &em));
		return;
	}
	FAULT_AT(DEPART_FROZEN);
	depart_signed(r);
}

static void on_offered(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE char *name = arg;
	struct resident *r = moving(k, name, MOVE_OFFERED);

	if (!r)
		return;
	r->move->call = 0;
	if (rc == ERR_TIMEOUT)
		rc = ERR_UNREACHABLE; /* nothing was committed: as good as not there */
	if (rc < 0) {
		move_failed(r, rc, text);
		return;
	}
	FAULT_AT(OFFER_GRANTED);
	r->move->need_code = tos_get_bool(tos_at(elements, 0), "need_code", true);
	depart(r);
}

struct tos_value *offer_args(const struct resident *r)
{
	struct tos_value *args = tos_map(), *limits = tos_map(), *minimum = tos_map();
	int64_t asked[LIMIT_COUNT];

	family_asked(r, asked);
	tos_set(args, "ticket", tos_bytes(r->ticket_cose.p, r->ticket_cose.n));
	tos_set(args, "e", incarnation_value(&r->e));
	tos_set(args, "n", tos_int((int64_t)r->n));
	tos_set(args, "code", tos_bytes(r->code_digest, DIGEST_BYTES));
	tos_set(args, "hops", tos_int((int64_t)r->hop_count));
	tos_set(args, "bytes", tos_int((int64_t)(r->briefcase.n + r->state_bytes.n)));
	for (int i = 0; i < LIMIT_COUNT; i++) {
		tos_set(limits, limit_names[i], tos_int(asked[i]));
		if (r->minimum[i] >= 0)
			tos_set(minimum, limit_names[i], tos_int(r->minimum[i]));
	}
	tos_set(args, "limits", limits);
	tos_set(args, "minimum", minimum);
	if (r->suffix[0])
		tos_set(args, "suffix", tos_text(r->suffix));
	return args;
}

static void offer(struct resident *r)
{
	struct move *mv = r->move;

	move_stage(mv, MOVE_OFFERED);
	FAULT_AT(OFFER_SEND);
	mv->call = kernel_call(r->k, mv->dest, "Handoff", "OFFER", offer_args(r),
		mv->timeout_ms, on_offered, mem_strdup(r->name));
}

/* ---- a move to this kernel itself: one transaction */

static void on_self_moved(void *arg, int rc, const struct errmsg *em)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} *ctx = arg;
	struct resident *r = moving(ctx->k, ctx->name, MOVE_JOURNAL);
	struct move *mv;

	free(ctx);
	if (!r)
		return;
	FAULT_AT(SELF_JOURNALED);
	if (rc < 0) {
		/* Its run is over and the next stay could not be journaled: it is the owner's to
		 * retry. */
		move_failed(r, rc, err_show(rc, em));
		resident_fault(r, rc, err_show(rc, em), "");
		return;
	}
	mv = STEAL(r->move);
	metric_add(r->k->metrics, "moves_total", NULL, 1);
	log_moved(r, mv);
	if (mv->rq)
		request_ok(STEAL(mv->rq), NULL);
	move_free(mv);
	resident_waits(r, NULL);
	router_held_uncollect(r, true);
	resident_undelivered(r);
	resident_go_on(r);
	home_report(r);
}

static void self_move(struct resident *r)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} * ctx;
	struct errmsg em = { "" };
	struct store_txn *t;
	struct tos_value *m;
	int rc = freeze(r, 0, &em);

	if (rc == 0)
		rc = sign_hops(r->k, &r, 1, &em);
	if (rc < 0) {
		resident_uncollect(r);
		move_failed(r, rc, err_show(rc, &em));
		return;
	}
	vm_abandon(r);
	resident_inboxes_drop(r);
	if (r->move->entry && tos_len(r->path))
		tos_value_free(tos_take_at(r->path, 0));
	/* A chain with a gap is nobody's: rather a restart, after which its row decides. */
	must(records_push(&r->hops, blob_slice(&r->hop_cose)));
	r->hop_count++;
	r->completed = r->via_go = false;
	r->go_seq = 0;
	r->started_ms = 0;
	resident_event(r, SHELL_EV_RETURNED, NULL);
	resident_trail(r, "arrived", r->k->config.name, "");
	ctx = mem_zero(sizeof(*ctx));
	ctx->k = r->k;
	snprintf(ctx->name, sizeof(ctx->name), "%s", r->name);
	move_stage(r->move, MOVE_JOURNAL);
	m = audit_carrier(r, r->n - 1);
	tos_set(m, "from", tos_text(r->k->config.name));
	t = store_begin(r->k->store);
	resident_put(t, r);
	audit_event(r->k, t, "arrived", m);
	FAULT_AT(SELF_COMMIT);
	rc = store_commit(t, on_self_moved, ctx);
	if (rc < 0)
		on_self_moved(ctx, rc, &em);
}

static void on_departure_hooks(struct kernel *k, void *arg, int rc, const char *text)
{
	AUTOFREE char *name = arg;
	struct resident *r = moving(k, name, MOVE_HOOKS);

	if (!r)
		return;
	if (rc < 0)
		move_failed(r, rc == ERR_TIMEOUT ? ERR_REFUSED : rc, text);
	else if (strcmp(r->move->dest, k->config.name) == 0)
		self_move(r);
	else if (offer_needless(r))
		depart(r);
	else
		offer(r);
}

void move_begin(struct resident *r, struct request *rq, const char *dest, bool entry,
	uint32_t timeout_ms)
{
	if (r->move || r->state != SHELL_RUNNING || !(r->completed || r->via_go)) {
		request_fail(rq, ERR_STATE, "%s is %s%s", r->name, shell_state_word(r->state),
			r->move ? " and moving" : "");
		return;
	}
	if (!name_kernel_ok(dest)) {
		request_fail(rq, ERR_NAME, "%s is not a kernel's name", dest);
		return;
	}
	if ((int64_t)r->hop_count >= r->usage.limit[LIMIT_hops]) {
		r->usage.exceeded[LIMIT_hops]++;
		metric_add(r->k->metrics, "limits_exceeded_total", "limit=\"hops\"", 1);
		request_fail(rq, ERR_LIMIT, "limit hops: %llu of %lld",
			(unsigned long long)r->hop_count,
			(long long)r->usage.limit[LIMIT_hops]);
		return;
	}
	r->move = mem_new(struct move);
	r->move->rq = rq;
	r->move->entry = entry;
	r->move->timeout_ms = timeout_ms;
	r->move->began_ms = clock_ms();
	move_stage(r->move, MOVE_HOOKS);
	snprintf(r->move->dest, sizeof(r->move->dest), "%s", dest);
	if (ext_hook(r->k->exts, TOS_INBOX_ON_DEPARTURE, 0))
		hooks_run(r->k, r, TOS_INBOX_ON_DEPARTURE, dest, "", on_departure_hooks,
			mem_strdup(r->name));
	else
		on_departure_hooks(r->k, mem_strdup(r->name), 0, "");
}

/* ---- going home at the end */

static void outcome_saved(void *arg, int rc, const struct errmsg *em)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} *ctx = arg;
	struct resident *r = resident_find(ctx->k, ctx->name);
	struct home_record *h = home_find(ctx->k, ctx->name);

	FAULT_AT(OUTCOME_HERE_JOURNALED);
	if (h)
		home_end(ctx->k, h, rc);
	if (rc < 0) {
		if (r)
			r->ending = false;
		log_error("an outcome could not be journaled; it is kept and tried again",
			KV_ERR(rc, em));
	} else if (r) {
		resident_event(r, SHELL_EV_FINISH, NULL);
		resident_free(r);
	}
	free(ctx);
}

static void outcome_at_home(struct resident *r, struct home_record *h)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} * ctx;
	struct store_txn *t;
	struct tos_value *m;

	if (home_busy(h))
		return; /* Mobility is asked again, and says the same */
	ctx = mem_zero(sizeof(*ctx));
	t = store_begin(r->k->store);
	m = audit_carrier(r, r->n);
	ctx->k = r->k;
	snprintf(ctx->name, sizeof(ctx->name), "%s", r->name);
	resident_trail(r, "finished", "", "");
	/* The row as it will be; memory follows when it is durable. */
	home_close(h, SHELL_FINISHED, outcome_of(r));
	home_put(t, h);
	account_charge(t, r);
	resident_del(t, r);
	r->ending = true;
	audit_event(r->k, t, "finished", m);
	FAULT_AT(OUTCOME_HERE_COMMIT);
	if (store_commit(t, outcome_saved, ctx) < 0) {
		home_end(r->k, h, ERR_FULL);
		r->ending = false;
		free(ctx);
	}
}

void outcome_begin(struct resident *r)
{
	struct home_record *h = home_find(r->k, r->name);
	struct errmsg em = { "" };
	int rc;

	if (r->move)
		return;
	if (strcmp(r->ticket.home, r->k->config.name) == 0 && h) {
		/* A copy that came while its incarnation was being raised. */
		if (incarnation_compare(&r->e, &h->e) < 0) {
			resident_end(
				r, SHELL_EV_SUPERSEDE, "its home knows a higher incarnation");
			return;
		}
		outcome_at_home(r, h);
		return;
	}
	r->move = mem_new(struct move);
	r->move->began_ms = clock_ms();
	snprintf(r->move->dest, sizeof(r->move->dest), "%s", r->ticket.home);
	resident_trail(r, "finished", "", "");
	rc = freeze(r, 1, &em);
	if (rc < 0) {
		move_cancel(r);
		resident_fault(r, rc, err_show(rc, &em), "");
		return;
	}
	FAULT_AT(OUTCOME_FROZEN);
	depart_signed(r);
}

/* ---- repeating */

static void resend(struct resident *r)
{
	struct link *l = links_find(r->k->links, r->dest);

	/* When it was never given to a link it is simply sent; else the same hop record goes
	 * again, and the destination repeats its answer from the journal. */
	if (!l || r->resending || r->asking || r->move || r->quarantined)
		return;
	r->resend_at_ms = clock_ms() + r->k->config.retry_ms;
	send_now(r);
}

void handoff_link_up(struct kernel *k, const char *peer)
{
	struct resident *r;
	size_t it = 0;

	while ((r = map_next(k->residents, &it, NULL, NULL)))
		if (r->state == SHELL_DEPARTING && strcmp(r->dest, peer) == 0 && !r->move)
			resend(r);
	handoff_voids(k, peer);
}

/* An offer that was on its way is lost, and nothing was committed by it: it need not wait for its
 * deadline. */
void handoff_link_down(struct kernel *k, const char *peer)
{
	struct peer *p = peer_get(k, peer);
	struct resident *r;
	size_t it = 0;

	if (p)
		took_drop(p);
	while ((r = map_next(k->residents, &it, NULL, NULL)))
		if (r->move && r->move->stage == MOVE_OFFERED &&
			strcmp(r->move->dest, peer) == 0 && call_sent(k, r->move->call))
			calls_failed(k, r->move->call, ERR_UNREACHABLE,
				"the link closed before it had answered the offer");
}

void handoff_tick(struct kernel *k, int64_t now_ms)
{
	struct resident *r;
	size_t it = 0, doubt = 0;

	handoff_sign(k);
	handoff_voids_tick(k, now_ms);
	while ((r = map_next(k->residents, &it, NULL, NULL))) {
		doubt += r->in_doubt;
		if (r->quarantined)
			continue; /* whose it is is being asked already */
		if (r->asking && !r->ask_sent && now_ms >= r->ask_at_ms)
			resolve_ask(r, NULL);
		if (r->state == SHELL_DEPARTING && !r->move && now_ms >= r->resend_at_ms) {
			/* A departing copy loaded from the store begins to want its link here. */
			resident_want_link(r, true);
			r->resend_at_ms = now_ms + k->config.retry_ms;
			resend(r);
			/* Declared dead before the doubt was known here, or before the home had
			 * heard of it. */
			if (r->in_doubt && !r->asking && !r->outcome_move &&
				now_ms >= r->ask_at_ms && !links_find(k->links, r->dest) &&
				home_is_declared(k, r->dest))
				resolve_begin(r, NULL);
		}
	}
	metric_set(k->metrics, "carriers_in_doubt", NULL, (double)doubt);
}
