/*
 * The hand-off of carriers between kernels (doc/protocol.md, "Hand-off"): offer, send, accept,
 * drop.
 *
 * Both sides journal before they act. Once the hop record has been given to the link, and
 * always after a restart, the copy counts as sent: only the destination's answer or a higher
 * incarnation frees it.
 */
#include "kernel/kernel.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/path.h"
#include "tos/extension.h"

#define KEEP_AFTER_MS ((int64_t)7 * 86400000)
/* up to this, code and envelope travel within the post */
#define INLINE_BYTES     ((size_t)600 << 10)
#define ENVELOPE_MAX     ((size_t)160 << 20)
#define INCARNATIONS_MAX 1000000
#define REPEATS_MAX      16 /* of one record that wait for the same answer */

enum move_stage { MOVE_HOOKS, MOVE_OFFERED, MOVE_JOURNAL, MOVE_SENDING, MOVE_SENT };

struct move {
	struct request *rq; /* Mobility's MOVE; NULL for an outcome and for a repeat */
	enum move_stage stage;
	char dest[64];
	bool entry, need_code;
	uint32_t timeout_ms;
	uint64_t call;
	int64_t began_ms;
	size_t bytes_code, bytes_envelope;
};

static void send_now(struct resident *r);

/* ---- incarnations */

struct tos_value *incarnation_value(const struct incarnation *e)
{
	struct tos_value *v = tos_array();

	tos_push(v, tos_int((int64_t)e->count));
	tos_push(v, tos_bytes(e->nonce, sizeof(e->nonce)));
	return v;
}

int incarnation_read(const struct tos_value *v, struct incarnation *out)
{
	size_t n;
	const uint8_t *p = tos_as_bytes(tos_at(v, 1), &n);

	*out = (struct incarnation){ 0 };
	if (tos_type(v) != TOS_ARRAY || n != sizeof(out->nonce) ||
		tos_as_int(tos_at(v, 0), -1) < 0)
		return ERR_MALFORMED;
	out->count = (uint64_t)tos_as_int(tos_at(v, 0), 0);
	memcpy(out->nonce, p, n);
	return 0;
}

static struct incarnation *incarnation_known(struct kernel *k, const uint8_t id[DIGEST_BYTES])
{
	return map_find(k->incarnations, id, DIGEST_BYTES);
}

void incarnation_learn(
	struct kernel *k, const uint8_t id[DIGEST_BYTES], const struct incarnation *e)
{
	struct incarnation *known = incarnation_known(k, id);
	struct store_txn *t;
	struct tos_value *v;
	uint8_t *bytes = NULL;
	size_t n;

	if (e->count == 0 || (known && incarnation_compare(e, known) <= 0))
		return;
	if (!known) {
		if (map_size(k->incarnations) >= INCARNATIONS_MAX) {
			metric_add(k->metrics, "incarnations_dropped_total", NULL, 1);
			return;
		}
		known = mem_new(struct incarnation);
		map_put(k->incarnations, id, DIGEST_BYTES, known);
	}
	*known = *e;
	v = incarnation_value(e);
	t = store_begin(k->store);
	if (tos_encode(v, &bytes, &n) == 0)
		store_put(t, T_INCARNATION, id, DIGEST_BYTES, bytes, n, 0);
	store_commit(t, NULL, NULL);
	free(bytes);
	tos_value_free(v);
}

static int incarnation_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct tos_value *v = NULL;
	struct incarnation *e = mem_new(struct incarnation);

	(void)expires_ms;
	if (key.n == DIGEST_BYTES && tos_decode(body.p, body.n, 0, &v) == 0 &&
		incarnation_read(v, e) == 0)
		free(map_put(k->incarnations, key.p, key.n, e));
	else
		free(e);
	tos_value_free(v);
	return 0;
}

int handoff_load(struct kernel *k, struct errmsg *em)
{
	k->incarnations = map_new();
	k->arrivals = map_new();
	k->codes = map_new();
	return store_each(
		k->store, T_INCARNATION, (struct slice){ NULL, 0 }, incarnation_row, k, em);
}

/* ---- keys of the journal */

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

static void put_map(struct store_txn *t, enum store_table tb, const struct buf *key,
	struct tos_value *m, int64_t expires_ms)
{
	uint8_t *bytes = NULL;
	size_t n;

	if (tos_encode(m, &bytes, &n) == 0)
		store_put(t, tb, key->data, key->len, bytes, n, expires_ms);
	free(bytes);
	tos_value_free(m);
}

static void gone_put(
	struct store_txn *t, const struct resident *r, uint64_t n, const char *dest)
{
	AUTOBUF key = BUF_INIT;
	struct tos_value *m = tos_map();

	resident_key(r, &key);
	tos_set(m, "name", tos_text(r->name));
	tos_set(m, "home", tos_text(r->ticket.home));
	tos_set(m, "e", incarnation_value(&r->e));
	tos_set(m, "n", tos_int((int64_t)n));
	tos_set(m, "dest", tos_text(dest));
	put_map(t, T_GONE, &key, m, r->ticket.expires_ms + KEEP_AFTER_MS);
}

/* ======================================================================= source */

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
static struct resident *moving(struct kernel *k, const char *name, enum move_stage stage)
{
	struct resident *r = resident_find(k, name);

	return r && r->move && r->move->stage == stage ? r : NULL;
}

static void log_moved(struct resident *r, const struct move *mv)
{
	log_info("moved", KV_STR("carrier", r->name), KV_STR("dest", mv->dest),
		KV_INT("bytes_code", mv->bytes_code),
		KV_INT("bytes_envelope", mv->bytes_envelope),
		KV_INT("ms", clock_ms() - mv->began_ms));
}

static void dropped(void *arg, int rc, const struct errmsg *em)
{
	(void)arg;
	if (rc < 0)
		log_error(
			"a departure could not be journaled; the copy stays and will be dropped later",
			KV_ERR(rc, em));
}

/* The destination has it: journal gone, drop our copy, show the record to the home. */
static void move_accepted(struct resident *r)
{
	struct kernel *k = r->k;
	struct move *mv = STEAL(r->move);
	struct store_txn *t = store_begin(k->store);
	struct tos_value *m = tos_map();
	uint64_t n = r->n - 1;
	char dest[64];

	snprintf(dest, sizeof(dest), "%s", r->dest);
	tos_set(m, "carrier", tos_text(r->name));
	tos_set(m, "dest", tos_text(dest));
	resident_event(r, r->outcome_move ? SHELL_EV_FINISH : SHELL_EV_ACCEPTED, NULL);
	vm_abandon(r);
	account_charge(t, r);
	gone_put(t, r, n, dest);
	resident_del(t, r);
	audit_event(k, t, r->outcome_move ? "outcome-delivered" : "departed", m);
	store_commit(t, dropped, k);
	metric_add(k->metrics, "moves_total", NULL, 1);
	if (mv) {
		log_moved(r, mv);
		if (mv->rq)
			request_ok(STEAL(mv->rq), NULL);
		move_free(mv);
	}
	if (r->in_doubt)
		peer_want(k, dest, false);
	router_forward_held(k, r, dest);
	if (!r->outcome_move)
		home_report_gone(r, n, dest);
	resident_free(r);
}

/* Back from a departure that did not come about. Where its process died meanwhile (or this
 * whole kernel did) there is no run to go on with: it begins again. */
static void departure_over(struct resident *r)
{
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

/* It came back in the same run: tos.go returns, a path goes on with its next choice. */
static void move_refused(struct resident *r, int rc, const char *text)
{
	struct store_txn *t;
	bool outcome = r->outcome_move;

	resident_trail(r, "refused", r->dest, text);
	if (r->in_doubt)
		peer_want(r->k, r->dest, false);
	r->in_doubt = r->sent = r->outcome_move = false;
	departure_over(r);
	t = store_begin(r->k->store);
	resident_put(t, r);
	store_commit(t, NULL, NULL);
	if (outcome) {
		resident_fault(r, rc, text, "");
		return;
	}
	if (r->move)
		move_failed(r, rc, text);
	else if (r->via_go && r->vm) {
		vm_done(r, r->go_seq, rc, text);
		r->via_go = false;
		r->go_seq = 0;
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

	if (r->asking)
		return; /* set aside until the home has said whose the carrier is */
	if (strcmp(word, "accepted") == 0)
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

	if (!r->in_doubt) {
		r->in_doubt = true;
		peer_want(r->k, r->dest, true);
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

/* Which departure an answer is about: one that comes late must not settle the next. */
struct departure {
	uint64_t n;
	struct incarnation e;
	char name[NAME_BYTES_MAX + 1];
};

static struct departure *departure_new(const struct resident *r)
{
	struct departure *d = mem_new(struct departure);

	d->n = r->n;
	d->e = r->e;
	snprintf(d->name, sizeof(d->name), "%s", r->name);
	return d;
}

static struct resident *departing(struct kernel *k, const struct departure *d)
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

	if (!r)
		return;
	r->resending = false;
	if (r->move)
		r->move->call = 0;
	r->sent |= sent;
	if (rc == 0) {
		move_answer(r, tos_at(elements, 0));
	} else if (r->sent || r->outcome_move) {
		move_doubt(r, text);
	} else {
		/* The frame never left: nothing is in doubt, the departure number stays used. */
		r->sent = false;
		departure_over(r);
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
	if (r->move) {
		r->move->stage = MOVE_SENT;
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
			departure_over(r);
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
		r->move->stage = MOVE_SENDING;
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

static void on_frozen(void *arg, int rc, const struct errmsg *em)
{
	struct resident *r;
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} *ctx = arg;

	r = moving(ctx->k, ctx->name, MOVE_JOURNAL);
	free(ctx);
	if (!r || r->state != SHELL_DEPARTING)
		return;
	if (rc < 0) {
		departure_over(r);
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

static int sign_hop(struct resident *r, unsigned kind, struct errmsg *em)
{
	struct hop hop = { .kind = kind, .e = r->e, .n = r->n - 1, .time_ms = clock_wall_ms() };
	struct envelope env;
	AUTOBUF payload = BUF_MAX((size_t)8 << 20), out = BUF_MAX((size_t)8 << 20);
	struct peer *p = peer_get(r->k, r->dest);
	int rc;

	memcpy(hop.id, r->id, sizeof(hop.id));
	snprintf(hop.suffix, sizeof(hop.suffix), "%s", r->suffix);
	snprintf(hop.from, sizeof(hop.from), "%s", r->k->config.name);
	snprintf(hop.dest, sizeof(hop.dest), "%s", r->dest);
	if (r->ticket.fast && p && p->boot_known) {
		hop.has_boot = true;
		memcpy(hop.boot, p->boot_nonce, sizeof(hop.boot));
	}
	if (tos_len(r->hops)) {
		size_t n;
		const uint8_t *last = tos_as_bytes(tos_at(r->hops, tos_len(r->hops) - 1), &n);

		digest_bytes(last, n, hop.prev);
	}
	rc = envelope_decode(blob_slice(&r->envelope), &env, em);
	if (rc == 0)
		rc = envelope_digests(&env, &hop.parts, em);
	if (rc == 0) {
		hop_encode(&payload, &hop);
		rc = buf_check(&payload);
	}
	if (rc == 0)
		rc = cose_sign(r->k->signer, "hop", slice_buf(&payload), &out, em);
	if (rc == 0)
		blob_set(&r->hop_cose, slice_buf(&out));
	hop_fini(&hop);
	return rc;
}

/* Freeze: n raised, envelope and hop record made, all journaled in one transaction. */
static int freeze(struct resident *r, unsigned kind, struct errmsg *em)
{
	AUTOBUF env = BUF_MAX(ENVELOPE_MAX);
	struct tos_value *path = tos_value_copy(r->path);
	int rc;

	if (r->vm)
		r->usage.used[LIMIT_cpu] = (int64_t)(vm_cpu_us(r) / 1000);
	if (!r->completed)
		resident_collect(r);
	if (r->move->entry && tos_len(path))
		tos_value_free(tos_take_at(path, 0));
	snprintf(r->dest, sizeof(r->dest), "%s", r->move->dest);
	r->outcome_move = kind == 1;
	r->n++;
	resident_trail(r, kind ? "homewards" : "departed", r->dest, "");
	rc = resident_envelope(r, path, &env);
	tos_value_free(path);
	if (rc < 0)
		return err_set(em, rc, "the envelope cannot be made");
	blob_set(&r->envelope, slice_buf(&env));
	return sign_hop(r, kind, em);
}

static void departing_commit(struct resident *r)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} *ctx = mem_zero(sizeof(*ctx));
	struct store_txn *t = store_begin(r->k->store);
	struct errmsg em = { "" };
	int rc;

	ctx->k = r->k;
	snprintf(ctx->name, sizeof(ctx->name), "%s", r->name);
	r->move->stage = MOVE_JOURNAL;
	resident_put(t, r);
	rc = store_commit(t, on_frozen, ctx);
	if (rc < 0)
		on_frozen(ctx, rc, &em);
}

static void on_offered(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE char *name = arg;
	struct resident *r = moving(k, name, MOVE_OFFERED);
	struct errmsg em = { "" };

	if (!r)
		return;
	r->move->call = 0;
	if (rc == ERR_TIMEOUT)
		rc = ERR_UNREACHABLE; /* nothing was committed: as good as not there */
	if (rc < 0) {
		move_failed(r, rc, text);
		return;
	}
	r->move->need_code = tos_get_bool(tos_at(elements, 0), "need_code", true);
	if (r->state != SHELL_RUNNING) {
		move_failed(r, ERR_STATE, "the carrier is not running any more");
		return;
	}
	rc = freeze(r, 0, &em);
	if (rc == 0)
		rc = resident_event(r, SHELL_EV_DEPART, &em);
	if (rc < 0) {
		move_failed(r, rc, err_show(rc, &em));
		return;
	}
	departing_commit(r);
}

static void offer(struct resident *r)
{
	struct tos_value *args = tos_map(), *limits = tos_map(), *minimum = tos_map();
	struct move *mv = r->move;

	mv->stage = MOVE_OFFERED;
	tos_set(args, "ticket", tos_bytes(r->ticket_cose.p, r->ticket_cose.n));
	tos_set(args, "e", incarnation_value(&r->e));
	tos_set(args, "n", tos_int((int64_t)r->n));
	tos_set(args, "code", tos_bytes(r->code_digest, DIGEST_BYTES));
	tos_set(args, "hops", tos_int((int64_t)r->hop_count));
	tos_set(args, "bytes", tos_int((int64_t)(r->briefcase.n + r->state_bytes.n)));
	for (int i = 0; i < LIMIT_COUNT; i++) {
		tos_set(limits, limit_names[i], tos_int(r->ticket.limits[i]));
		if (r->minimum[i] >= 0)
			tos_set(minimum, limit_names[i], tos_int(r->minimum[i]));
	}
	tos_set(args, "limits", limits);
	tos_set(args, "minimum", minimum);
	mv->call = kernel_call(r->k, mv->dest, "Handoff", "OFFER", args, mv->timeout_ms,
		on_offered, mem_strdup(r->name));
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
	if (rc < 0) {
		move_failed(r, rc, err_show(rc, em));
		return;
	}
	mv = STEAL(r->move);
	metric_add(r->k->metrics, "moves_total", NULL, 1);
	log_moved(r, mv);
	if (mv->rq)
		request_ok(STEAL(mv->rq), NULL);
	move_free(mv);
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
	int rc = freeze(r, 0, &em);

	if (rc == 0)
		rc = resident_event(r, SHELL_EV_DEPART, &em);
	if (rc < 0) {
		move_failed(r, rc, err_show(rc, &em));
		return;
	}
	vm_abandon(r);
	resident_inboxes_drop(r);
	if (r->move->entry && tos_len(r->path))
		tos_value_free(tos_take_at(r->path, 0));
	tos_push(r->hops, tos_bytes(r->hop_cose.p, r->hop_cose.n));
	r->hop_count++;
	r->completed = r->via_go = false;
	r->go_seq = 0;
	r->started_ms = 0;
	resident_event(r, SHELL_EV_RETURNED, NULL);
	resident_trail(r, "arrived", r->k->config.name, "");
	ctx = mem_zero(sizeof(*ctx));
	ctx->k = r->k;
	snprintf(ctx->name, sizeof(ctx->name), "%s", r->name);
	r->move->stage = MOVE_JOURNAL;
	t = store_begin(r->k->store);
	resident_put(t, r);
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
	r->move->stage = MOVE_HOOKS;
	r->waiting[0] = 0;
	snprintf(r->move->dest, sizeof(r->move->dest), "%s", dest);
	hooks_run(r->k, r, TOS_INBOX_ON_DEPARTURE, dest, "", on_departure_hooks,
		mem_strdup(r->name));
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

	if (rc < 0) {
		log_error("an outcome could not be journaled; it is kept and tried again",
			KV_ERR(rc, em));
	} else if (r && h) {
		struct tos_value *outcome = outcome_of(r);

		resident_event(r, SHELL_EV_FINISH, NULL);
		home_outcome(ctx->k, h, SHELL_FINISHED, outcome);
		resident_free(r);
	}
	free(ctx);
}

static void outcome_at_home(struct resident *r, struct home_record *h)
{
	struct {
		struct kernel *k;
		char name[NAME_BYTES_MAX + 1];
	} *ctx = mem_zero(sizeof(*ctx));
	struct store_txn *t = store_begin(r->k->store);
	struct tos_value *m = tos_map(), *kept = h->outcome;
	enum shell_state state = h->state;

	ctx->k = r->k;
	snprintf(ctx->name, sizeof(ctx->name), "%s", r->name);
	tos_set(m, "carrier", tos_text(r->name));
	resident_trail(r, "finished", "", "");
	/* The row as it will be; memory follows when it is durable. */
	h->outcome = outcome_of(r);
	h->state = SHELL_FINISHED;
	h->ended_ms = clock_wall_ms();
	home_put(t, h);
	tos_value_free(h->outcome);
	h->outcome = kept;
	h->state = state;
	account_charge(t, r);
	resident_del(t, r);
	audit_event(r->k, t, "finished", m);
	if (store_commit(t, outcome_saved, ctx) < 0)
		free(ctx);
}

void outcome_begin(struct resident *r)
{
	struct home_record *h = home_find(r->k, r->name);
	struct errmsg em = { "" };
	int rc;

	if (r->move)
		return;
	if (strcmp(r->ticket.home, r->k->config.name) == 0 && h) {
		outcome_at_home(r, h);
		return;
	}
	r->move = mem_new(struct move);
	r->move->began_ms = clock_ms();
	snprintf(r->move->dest, sizeof(r->move->dest), "%s", r->ticket.home);
	resident_trail(r, "finished", "", "");
	rc = freeze(r, 1, &em);
	if (rc == 0)
		rc = resident_event(r, SHELL_EV_DEPART, &em);
	if (rc < 0) {
		move_cancel(r);
		resident_fault(r, rc, err_show(rc, &em), "");
		return;
	}
	departing_commit(r);
}

/* ---- repeating */

static void resend(struct resident *r)
{
	struct link *l = links_find(r->k->links, r->dest);

	/* When it was never given to a link it is simply sent; else the same hop record goes
	 * again, and the destination repeats its answer from the journal. */
	if (!l || r->resending || r->asking || r->move)
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

void handoff_tick(struct kernel *k, int64_t now_ms)
{
	struct resident *r;
	size_t it = 0, doubt = 0;

	while ((r = map_next(k->residents, &it, NULL, NULL))) {
		doubt += r->in_doubt;
		if (r->state == SHELL_DEPARTING && !r->move && now_ms >= r->resend_at_ms) {
			/* A departing copy loaded from the store begins to want its link here. */
			if (!links_find(k->links, r->dest) && r->resend_at_ms == 0)
				peer_want(k, r->dest, true);
			r->resend_at_ms = now_ms + k->config.retry_ms;
			resend(r);
		}
	}
	metric_set(k->metrics, "carriers_in_doubt", NULL, (double)doubt);
}

/* ---- settling a doubt by the home's word */

struct resolving {
	char name[NAME_BYTES_MAX + 1];
	struct request *rq;
};

static void void_put(struct store_txn *t, const struct resident *r, const struct incarnation *e)
{
	AUTOBUF key = BUF_INIT;
	struct tos_value *m = tos_map();

	resident_key(r, &key);
	tos_set(m, "dest", tos_text(r->dest));
	tos_set(m, "id", tos_bytes(r->id, DIGEST_BYTES));
	tos_set(m, "e", incarnation_value(e));
	put_map(t, T_VOID, &key, m, r->ticket.expires_ms + KEEP_AFTER_MS);
}

static void on_asked(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct resolving *rs = arg;
	struct resident *r = resident_find(k, rs->name);
	const struct tos_value *m = tos_at(elements, 0);
	const char *word = tos_get_text(m, "answer", "");
	struct incarnation e;
	struct store_txn *t;
	struct tos_value *out;

	if (!r || r->state != SHELL_DEPARTING) {
		if (rs->rq)
			request_fail(
				rs->rq, ERR_STATE, "%s is not in doubt any more", rs->name);
		return;
	}
	r->asking = false;
	if (rc == 0 && strcmp(word, "granted") == 0 &&
		incarnation_read(tos_get(m, "e"), &e) == 0) {
		t = store_begin(k->store);
		void_put(t, r, &e);
		r->e = e;
		incarnation_learn(k, r->id, &e);
		peer_want(k, r->dest, false);
		r->in_doubt = r->sent = r->outcome_move = false;
		resident_trail(r, "resolved", r->dest, "declared dead");
		move_cancel(r);
		r->resending = false;
		vm_abandon(r);
		r->via_go = false;
		r->go_seq = 0;
		resident_event(r, SHELL_EV_RETURNED, NULL);
		resident_put(t, r);
		store_commit(t, NULL, NULL);
		log_notice(
			"doubt resolved: the carrier goes on here", KV_STR("carrier", r->name));
		resident_go_on(r);
		home_report(r);
	} else if (rc == 0 && strcmp(word, "elsewhere") == 0) {
		move_accepted(r);
		r = NULL;
	}
	if (!rs->rq)
		return;
	if (rc < 0) {
		request_fail(rs->rq, rc, "%s", text);
	} else {
		out = tos_map();
		tos_set(out, "name", tos_text(rs->name));
		tos_set(out, "state", tos_text(r ? shell_state_word(r->state) : "gone"));
		request_ok(rs->rq, out);
	}
}

void resolve_begin(struct resident *r, struct request *rq)
{
	struct resolving *rs;
	struct tos_value *args;

	if (r->state != SHELL_DEPARTING || r->asking) {
		request_fail(rq, ERR_STATE, "%s is %s, not in doubt", r->name,
			shell_state_word(r->state));
		return;
	}
	rs = mem_new(struct resolving);
	snprintf(rs->name, sizeof(rs->name), "%s", r->name);
	rs->rq = rq;
	r->asking = true;
	args = tos_map();
	tos_set(args, "name", tos_text(r->name));
	tos_set(args, "id", tos_bytes(r->id, DIGEST_BYTES));
	tos_set(args, "e", incarnation_value(&r->e));
	tos_set(args, "n", tos_int((int64_t)r->n - 1));
	tos_set(args, "dest", tos_text(r->dest));
	home_evidence(r, args);
	kernel_call(
		r->k, r->ticket.home, "Home", "ASK", args, r->k->config.call_ms, on_asked, rs);
}

struct void_sent {
	uint8_t key[DIGEST_BYTES + 64];
	size_t n;
};

static void on_void(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct void_sent *v = arg;
	struct store_txn *t;

	(void)text;
	(void)elements;
	if (rc == 0) {
		t = store_begin(k->store);
		store_del(t, T_VOID, v->key, v->n);
		store_commit(t, NULL, NULL);
	}
}

static int void_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct {
		struct kernel *k;
		const char *peer;
	} *ctx = arg;
	struct tos_value *m = NULL, *args;
	struct void_sent *v;

	(void)expires_ms;
	if (tos_decode(body.p, body.n, 0, &m) < 0)
		return 0;
	if (strcmp(tos_get_text(m, "dest", ""), ctx->peer) == 0 && key.n <= sizeof(v->key)) {
		v = mem_new(struct void_sent);
		memcpy(v->key, key.p, key.n);
		v->n = key.n;
		args = tos_map();
		tos_set(args, "id", tos_value_copy(tos_get(m, "id")));
		tos_set(args, "e", tos_value_copy(tos_get(m, "e")));
		kernel_call(ctx->k, ctx->peer, "Handoff", "VOID", args, ctx->k->config.call_ms,
			on_void, v);
	}
	tos_value_free(m);
	return 0;
}

void handoff_voids(struct kernel *k, const char *peer)
{
	struct {
		struct kernel *k;
		const char *peer;
	} ctx = { k, peer };
	struct errmsg em;

	store_each(k->store, T_VOID, (struct slice){ NULL, 0 }, void_row, &ctx, &em);
}

/* ======================================================================= destination */

struct arrival {
	struct kernel *k;
	struct resident *r;
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

static void offer_verb(struct kernel *k, struct request *rq)
{
	struct ticket t = { .path = NULL };
	struct cert_info owner;
	struct incarnation e = { 0 }, *known;
	int64_t minimum[LIMIT_COUNT], granted[LIMIT_COUNT] = { 0 };
	uint8_t id[DIGEST_BYTES];
	struct errmsg em = { "" };
	struct tos_value *out, *limits;
	size_t n, n_code;
	const uint8_t *cose = tos_get_bytes(rq->args, "ticket", &n);
	const uint8_t *code = tos_get_bytes(rq->args, "code", &n_code);
	int64_t bytes = tos_get_int(rq->args, "bytes", 0);
	int rc = cose && n_code == DIGEST_BYTES
			 ? 0
			 : err_set(&em, ERR_MALFORMED, "an OFFER lacks its ticket");

	if (rc == 0 && !ext_hook(k->exts, TOS_INBOX_ON_COMPLETION, 0))
		rc = err_set(
			&em, ERR_UNSUPPORTED, "%s has no mobility extension", k->config.name);
	if (rc == 0)
		rc = ticket_verify(k, (struct slice){ cose, n }, &t, id, &owner, &em);
	if (rc == 0)
		rc = admit_check(k, &owner, "arrive", !resident_find(k, t.name), &em);
	offer_limits(tos_get(rq->args, "minimum"), minimum);
	if (rc == 0)
		rc = admit_limits(k, &t, minimum, granted, &em);
	if (rc == 0 && bytes > granted[LIMIT_state])
		rc = err_set(&em, ERR_LIMIT, "limit state: %lld bytes, %s grants %lld",
			(long long)bytes, k->config.name, (long long)granted[LIMIT_state]);
	if (rc == 0 && tos_get_int(rq->args, "hops", 0) >= granted[LIMIT_hops])
		rc = err_set(&em, ERR_LIMIT, "limit hops: %s grants %lld", k->config.name,
			(long long)granted[LIMIT_hops]);
	if (rc == 0) {
		known = incarnation_known(k, id);
		incarnation_read(tos_get(rq->args, "e"), &e);
		if (known && incarnation_compare(&e, known) < 0)
			rc = err_set(&em, ERR_SUPERSEDED, "a higher incarnation of %s is known",
				t.name);
	}
	if (rc < 0) {
		ticket_fini(&t);
		metric_add(k->metrics, "offers_refused_total", NULL, 1);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	out = tos_map();
	limits = tos_map();
	for (int i = 0; i < LIMIT_COUNT; i++)
		tos_set(limits, limit_names[i], tos_int(granted[i]));
	tos_set(out, "granted", limits);
	tos_set(out, "need_code", tos_bool(code_find(k, code, NULL) == NULL));
	ticket_fini(&t);
	request_ok(rq, out);
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
	hop_fini(&a->hop);
	blob_free(&a->hop_cose);
	buf_fini(&a->key);
	free(a);
}

/* Answer everybody who sent this record; the arrival is over. */
static void arrival_answer(struct arrival *a, const char *word, int rc, const char *text)
{
	struct kernel *k = a->k;

	map_del(k->arrivals, a->key.data, a->key.len);
	while (!list_empty(&a->requests)) {
		struct waiting_request *w =
			LIST_ITEM(a->requests.next, struct waiting_request, node);

		list_del(&w->node);
		request_ok(w->rq, answer_map(word, rc, text));
		free(w);
	}
	arrival_free(a);
}

/* The journal failed: no answer was given, so the source keeps its copy and asks again. */
static void arrival_no_answer(struct arrival *a, int rc, const char *text)
{
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

	if (rc < 0)
		arrival_no_answer(f->a, rc, err_show(rc, em));
	else
		arrival_answer(f->a, "refused", f->rc, f->text);
}

static void arrival_refuse(struct arrival *a, int rc, const char *text)
{
	struct kernel *k = a->k;
	struct refusal *f = mem_new(struct refusal);
	struct store_txn *t = store_begin(k->store);
	struct tos_value *m = tos_map();
	int failed;

	f->a = a;
	f->rc = rc;
	snprintf(f->text, sizeof(f->text), "%s", text);
	log_notice("arrival refused", KV_STR("carrier", a->r->name),
		KV_STR("from", a->hop.from), KV_STR("error", err_word(rc)),
		KV_STR("reason", text));
	metric_add(k->metrics, "arrivals_refused_total", NULL, 1);
	tos_set(m, "from", tos_text(a->hop.from));
	tos_set(m, "carrier", tos_text(a->r->name));
	tos_set(m, "code", tos_text(err_word(rc)));
	tos_set(m, "text", tos_text(text));
	put_map(t, T_ANSWER, &a->key, answer_map("refused", rc, text),
		(a->r->ticket.expires_ms ? a->r->ticket.expires_ms : clock_wall_ms()) +
			KEEP_AFTER_MS);
	audit_event(k, t, "arrival-refused", m);
	failed = store_commit(t, refusal_saved, f);
	if (failed < 0) {
		free(f);
		arrival_no_answer(a, failed, err_text(failed));
	}
}

static void arrival_saved(void *arg, int rc, const struct errmsg *em)
{
	struct arrival *a = arg;
	struct kernel *k = a->k;
	struct resident *r = a->r;

	if (rc < 0) {
		arrival_no_answer(a, rc, err_show(rc, em));
		return;
	}
	a->r = NULL;
	account_open(r);
	resident_undelivered(r);
	metric_add(k->metrics, "arrivals_total", NULL, 1);
	map_put_str(k->residents, r->name, r);
	place_forget(k, r->name);
	arrival_answer(a, "accepted", 0, "");
	home_report(r);
	resident_go_on(r);
}

static void arrival_journal(struct arrival *a)
{
	struct kernel *k = a->k;
	struct resident *r = a->r, *old = resident_find(k, r->name);
	struct store_txn *t = store_begin(k->store);
	struct tos_value *m = tos_map();
	struct errmsg em = { "" };
	int rc;

	/* An older copy of ours whose departure never was answered: this arrival is the proof
	 * that it was accepted. */
	if (old) {
		vm_abandon(old);
		old->state = SHELL_DEPARTING;
		resident_event(old, SHELL_EV_ACCEPTED, NULL);
		if (old->in_doubt)
			peer_want(k, old->dest, false);
		resident_free(old);
	}
	resident_event(r, SHELL_EV_ADMIT, NULL);
	tos_set(m, "carrier", tos_text(r->name));
	tos_set(m, "owner", tos_text(r->owner.name));
	tos_set(m, "from", tos_text(a->hop.from));
	put_map(t, T_ANSWER, &a->key, answer_map("accepted", 0, ""),
		r->ticket.expires_ms + KEEP_AFTER_MS);
	resident_put(t, r);
	audit_event(k, t, "arrived", m);
	rc = store_commit(t, arrival_saved, a);
	if (rc < 0)
		arrival_no_answer(a, rc, err_show(rc, &em));
}

static void on_arrival_hooks(struct kernel *k, void *arg, int rc, const char *text)
{
	struct arrival *a = arg;

	(void)k;
	if (rc < 0)
		arrival_refuse(a, rc == ERR_TIMEOUT ? ERR_REFUSED : rc, text);
	else
		arrival_journal(a);
}

/* Each record signed by the kernel it left from, each naming the one before: from the home to
 * here. */
static int chain_verify(
	struct kernel *k, const struct resident *r, const struct hop *last, struct errmsg *em)
{
	uint8_t prev[DIGEST_BYTES] = { 0 };
	char at[65];
	struct trust trust;
	int64_t now = clock_wall_ms();
	int rc = 0;

	kernel_trust(k, &trust);
	snprintf(at, sizeof(at), "%s", r->ticket.home);
	for (size_t i = 0; i < tos_len(r->hops) && rc == 0; i++) {
		struct cert_info who;
		struct hop hop = { .parts = NULL };
		struct cose cose;
		size_t n;
		const uint8_t *p = tos_as_bytes(tos_at(r->hops, i), &n);

		rc = cose_decode((struct slice){ p, n }, &cose, em);
		if (rc == 0)
			rc = hop_decode(cose.payload, &hop, em);
		/* A kernel whose certificate has run out since signed in good time. */
		trust.now_ms = hop.time_ms < now ? hop.time_ms : now;
		if (rc == 0)
			rc = cose_verify(
				&trust, "hop", (struct slice){ p, n }, &cose, &who, em);
		if (rc == 0 && (who.kind != CERT_KERNEL || strcmp(who.name, hop.from) != 0 ||
				       strcmp(hop.from, at) != 0 ||
				       memcmp(hop.prev, prev, sizeof(prev)) != 0 ||
				       memcmp(hop.id, r->id, DIGEST_BYTES) != 0))
			rc = err_set(em, ERR_SIGNATURE, "hop %zu of the chain does not fit", i);
		snprintf(at, sizeof(at), "%s", hop.dest);
		digest_bytes(p, n, prev);
		hop_fini(&hop);
	}
	if (rc == 0 &&
		(strcmp(last->from, at) != 0 || memcmp(last->prev, prev, sizeof(prev)) != 0))
		rc = err_set(em, ERR_SIGNATURE, "the hop record does not continue the chain");
	return rc;
}

static int parts_verify(struct slice envelope, const struct hop *hop, struct errmsg *em)
{
	struct tos_value *digests = NULL;
	struct envelope env;
	int rc = envelope_decode(envelope, &env, em);

	if (rc == 0)
		rc = envelope_digests(&env, &digests, em);
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
			bytes = upload_find(k, r->code_digest);
		if (!bytes.n)
			return err_set(em, ERR_NOT_FOUND, "the code did not come along");
		rc = code_verify(k, bytes, &code, em);
		if (rc < 0)
			return rc;
		if (memcmp(code->digest, r->code_digest, DIGEST_BYTES) != 0)
			return err_set(
				em, ERR_SIGNATURE, "the code is not what the ticket names");
	}
	blob_set(&r->code, blob_slice(&code->bundle));
	r->author = code->author;
	memcpy(r->minimum, code->manifest.limits, sizeof(r->minimum));
	return 0;
}

/* All that is checked of an envelope before anything of it may run. */
static int arrival_check(
	struct arrival *a, struct request *rq, struct slice envelope, struct errmsg *em)
{
	struct kernel *k = a->k;
	struct resident *r = a->r;
	uint8_t id[DIGEST_BYTES];
	int rc = parts_verify(envelope, &a->hop, em);

	if (rc == 0)
		rc = resident_load_envelope(r, envelope, em);
	if (rc == 0)
		rc = ticket_verify(
			k, blob_slice(&r->ticket_cose), &r->ticket, id, &r->owner, em);
	if (rc < 0)
		return rc;
	memcpy(r->id, id, sizeof(id));
	snprintf(r->suffix, sizeof(r->suffix), "%s", a->hop.suffix);
	snprintf(r->name, sizeof(r->name), "%s%s", r->ticket.name, r->suffix);
	r->e = a->hop.e;
	r->n = a->hop.n + 1;
	if (memcmp(id, a->hop.id, sizeof(id)) != 0)
		return err_set(em, ERR_SIGNATURE, "the hop record is another carrier's");
	/* Nobody makes clones in this version: with a suffix of its own a kernel could double
	 * one. */
	if (r->suffix[0])
		return err_set(em, ERR_UNSUPPORTED, "clones are not supported");
	/* A home that gives one name to two tickets must not have one carrier replace the
	 * other. */
	if (resident_find(k, r->name) &&
		memcmp(resident_find(k, r->name)->id, id, sizeof(id)) != 0)
		return err_set(
			em, ERR_EXISTS, "another carrier of the name %s is here", r->name);
	if (memcmp(r->code_digest, r->ticket.code, DIGEST_BYTES) != 0)
		return err_set(em, ERR_SIGNATURE, "the code is not what the owner signed");
	rc = chain_verify(k, r, &a->hop, em);
	if (r->hop_count < tos_len(r->hops))
		r->hop_count = tos_len(r->hops); /* the chain can't be talked away */
	if (rc == 0 && !r->ticket.itinerant && !path_is_suffix(r->path, r->ticket.path))
		rc = err_set(em, ERR_DENIED, "the path is not what the owner signed");
	if (rc == 0 && a->hop.kind == 1)
		return 0;
	if (rc == 0)
		rc = arrival_code(k, rq, r, em);
	if (rc == 0)
		rc = admit_check(k, &r->owner, "arrive", !resident_find(k, r->name), em);
	if (rc == 0)
		rc = admit_limits(k, &r->ticket, r->minimum, r->usage.limit, em);
	if (rc == 0 && ++r->hop_count > (uint64_t)r->usage.limit[LIMIT_hops])
		rc = err_set(em, ERR_LIMIT, "limit hops: %s grants %lld", k->config.name,
			(long long)r->usage.limit[LIMIT_hops]);
	if (rc == 0 && (int64_t)envelope.n > r->usage.limit[LIMIT_state] + (int64_t)(1 << 20))
		rc = err_set(
			em, ERR_LIMIT, "limit state: the envelope has %zu bytes", envelope.n);
	return rc;
}

/* Has this kernel seen a later departure of it, so that this record can only be a replay? */
static bool replayed(struct kernel *k, const struct hop *hop)
{
	struct resident *r = resident_by_id(k, hop->id, hop->suffix);
	AUTOBUF key = BUF_INIT, body = BUF_MAX(65536);
	struct tos_value *m = NULL;
	struct incarnation e;
	bool yes = false;

	if (r && incarnation_compare(&r->e, &hop->e) == 0 &&
		(r->state != SHELL_DEPARTING || hop->n < r->n))
		return true;
	buf_add(&key, hop->id, DIGEST_BYTES);
	buf_add_str(&key, hop->suffix);
	if (store_get(k->store, T_GONE, key.data, key.len, &body, NULL) == 0 &&
		tos_decode(body.data, body.len, 0, &m) == 0 &&
		incarnation_read(tos_get(m, "e"), &e) == 0)
		yes = incarnation_compare(&e, &hop->e) == 0 &&
		      (int64_t)hop->n <= tos_get_int(m, "n", -1);
	tos_value_free(m);
	return yes;
}

/* The same record was answered before: the same answer again. */
static bool answered_before(struct kernel *k, struct request *rq, const struct buf *key)
{
	AUTOBUF body = BUF_MAX(65536);
	struct tos_value *m = NULL;

	if (store_get(k->store, T_ANSWER, key->data, key->len, &body, NULL) < 0 ||
		tos_decode(body.data, body.len, 0, &m) < 0)
		return false;
	metric_add(k->metrics, "answers_repeated_total", NULL, 1);
	request_ok(rq, m);
	return true;
}

static void arrival_outcome(struct arrival *a);

static struct arrival *arrival_of(struct kernel *k, const struct hop *hop)
{
	struct arrival *a;
	size_t it = 0;

	while ((a = map_next(k->arrivals, &it, NULL, NULL)))
		if (memcmp(a->hop.id, hop->id, DIGEST_BYTES) == 0 &&
			strcmp(a->hop.suffix, hop->suffix) == 0)
			return a;
	return NULL;
}

static void send_verb(struct kernel *k, struct request *rq)
{
	struct slice hop_cose, envelope;
	struct incarnation *known;
	struct waiting_request *w;
	struct cert_info who;
	struct errmsg em = { "" };
	struct resident *old;
	struct arrival *a;
	struct trust trust;
	struct cose cose;
	size_t n;
	int rc;

	hop_cose.p = tos_get_bytes(rq->args, "hop", &hop_cose.n);
	a = mem_new(struct arrival);
	a->k = k;
	a->r = resident_new(k);
	list_init(&a->requests);
	kernel_trust(k, &trust);
	rc = cose_verify(&trust, "hop", hop_cose, &cose, &who, &em);
	if (rc == 0)
		rc = hop_decode(cose.payload, &a->hop, &em);
	if (rc == 0 && (who.kind != CERT_KERNEL || strcmp(who.name, a->hop.from) != 0 ||
			       strcmp(rq->from.kernel, a->hop.from) != 0))
		rc = err_set(&em, ERR_SIGNATURE, "the hop record was not signed by %s",
			rq->from.kernel);
	if (rc == 0 && strcmp(a->hop.dest, k->config.name) != 0)
		rc = err_set(&em, ERR_DENIED, "the hop record names another destination, %s",
			a->hop.dest);
	if (rc < 0) {
		struct tos_value *m = tos_map();

		tos_set(m, "from", tos_text(rq->from.kernel));
		tos_set(m, "code", tos_text(err_word(rc)));
		tos_set(m, "text", tos_text(err_show(rc, &em)));
		audit_event(k, NULL, "hop-record-refused", m);
		arrival_free(a);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	answer_key(&a->key, a->hop.id, a->hop.suffix, &a->hop.e, a->hop.n);
	/* What was accepted from a --fast carrier before a restart is gone: said before the
	 * journal's answer is repeated. */
	bool rebooted =
		a->hop.has_boot && memcmp(a->hop.boot, k->boot_nonce, sizeof(a->hop.boot)) != 0;

	if (!rebooted && answered_before(k, rq, &a->key)) {
		arrival_free(a);
		return;
	}
	struct arrival *under_way = map_find(k->arrivals, a->key.data, a->key.len);

	if ((!under_way && arrival_of(k, &a->hop)) ||
		(under_way && under_way->n_waiting >= REPEATS_MAX)) {
		/* Two departures of one carrier at once: one has to be settled first. */
		arrival_free(a);
		request_fail(rq, ERR_STATE, "an arrival of this carrier is under way");
		return;
	}
	w = mem_new(struct waiting_request);
	w->rq = rq;
	if (under_way) {
		/* Only its answer is waited for: what came along once more is not kept. */
		tos_value_free(rq->elements);
		rq->elements = NULL;
		rq->args = NULL;
		list_add(&under_way->requests, &w->node);
		under_way->n_waiting++;
		arrival_free(a);
		return;
	}
	list_add(&a->requests, &w->node);
	map_put(k->arrivals, a->key.data, a->key.len, a);
	blob_set(&a->hop_cose, hop_cose);
	known = incarnation_known(k, a->hop.id);
	if (known && incarnation_compare(&a->hop.e, known) < 0) {
		arrival_answer(
			a, "superseded", ERR_SUPERSEDED, "a higher incarnation is known here");
		return;
	}
	if (rebooted) {
		arrival_answer(a, "unknown", ERR_UNKNOWN, "this kernel restarted since");
		return;
	}
	if (replayed(k, &a->hop)) {
		arrival_refuse(
			a, ERR_REPLAY, "a later departure of this carrier is known here");
		return;
	}
	envelope.p = tos_get_bytes(rq->args, "envelope", &envelope.n);
	if (!envelope.n) {
		const uint8_t *digest = tos_get_bytes(rq->args, "envelope_digest", &n);

		envelope = digest && n == DIGEST_BYTES ? upload_find(k, digest)
						       : (struct slice){ NULL, 0 };
		if (!envelope.n) {
			arrival_no_answer(a, ERR_NOT_FOUND, "the envelope did not come along");
			return;
		}
	}
	rc = arrival_check(a, rq, envelope, &em);
	if (rc < 0) {
		arrival_refuse(a, rc, err_show(rc, &em));
		return;
	}
	old = resident_by_id(k, a->hop.id, a->hop.suffix);
	if (old && incarnation_compare(&old->e, &a->hop.e) < 0) {
		/* Only the home raises an incarnation: it is asked before our copy gives way.
		 * When it knows of this one it ends ours, and the repeat of this record finds
		 * room. */
		home_report(old);
		arrival_no_answer(
			a, ERR_STATE, "a lower incarnation is here; its home is being asked");
		return;
	}
	tos_push(a->r->hops, tos_bytes(hop_cose.p, hop_cose.n));
	rate_init(&a->r->post_rate, a->r->usage.limit[LIMIT_posts], clock_ms());
	rate_init(&a->r->log_rate, 200, clock_ms());
	if (a->hop.kind == 1) {
		arrival_outcome(a);
		return;
	}
	resident_trail(a->r, "arrived", a->hop.from, "");
	hooks_run(k, a->r, TOS_INBOX_ON_ARRIVAL, k->config.name, a->hop.from, on_arrival_hooks,
		a);
}

static void outcome_taken(void *arg, int rc, const struct errmsg *em)
{
	struct arrival *a = arg;
	struct home_record *h = home_find(a->k, a->r->name);

	if (rc < 0) {
		arrival_no_answer(a, rc, err_show(rc, em));
		return;
	}
	if (h)
		home_outcome(a->k, h, SHELL_FINISHED, outcome_of(a->r));
	arrival_answer(a, "accepted", 0, "");
}

/* Does the outcome come from where the carrier is? A kernel that had it once has a chain that
 * verifies, too: but the record by which it came there is of an earlier departure than the home
 * has heard of. */
static bool outcome_of_holder(const struct home_record *h, const struct arrival *a)
{
	const struct tos_value *hops = a->r->hops;

	if (strcmp(h->kernel, a->hop.from) == 0)
		return true;
	for (size_t i = tos_len(hops); i > 0; i--) {
		struct hop hop = { .parts = NULL };
		struct slice bytes;
		struct cose cose;
		bool came, fits;

		bytes.p = tos_as_bytes(tos_at(hops, i - 1), &bytes.n);
		if (cose_decode(bytes, &cose, NULL) < 0 ||
			hop_decode(cose.payload, &hop, NULL) < 0)
			return false;
		came = strcmp(hop.from, a->hop.from) != 0 && strcmp(hop.dest, a->hop.from) == 0;
		fits = incarnation_compare(&hop.e, &h->e) == 0 && hop.n + 1 >= h->n;
		hop_fini(&hop);
		if (came)
			return fits;
	}
	return false;
}

/* A finished carrier comes home: its outcome is journaled with the answer. */
static void arrival_outcome(struct arrival *a)
{
	struct kernel *k = a->k;
	struct home_record *h = home_find(k, a->r->name);
	struct store_txn *t;
	struct tos_value *m, *kept;
	enum shell_state state;
	int rc;

	if (!h || memcmp(h->id, a->r->id, DIGEST_BYTES) != 0) {
		arrival_refuse(a, ERR_UNKNOWN, "this is not its home, or its home forgot it");
		return;
	}
	/* The outcome that was taken is repeated from the journal; no other replaces it. */
	if (shell_ended(h->state) || incarnation_compare(&a->hop.e, &h->e) < 0) {
		arrival_answer(a, "superseded", ERR_SUPERSEDED, "it has ended otherwise");
		return;
	}
	if (incarnation_compare(&a->hop.e, &h->e) > 0 || !outcome_of_holder(h, a)) {
		arrival_refuse(a, ERR_REPLAY, "its home knows it to be elsewhere");
		return;
	}
	m = tos_map();
	tos_set(m, "carrier", tos_text(a->r->name));
	tos_set(m, "from", tos_text(a->hop.from));
	t = store_begin(k->store);
	put_map(t, T_ANSWER, &a->key, answer_map("accepted", 0, ""),
		a->r->ticket.expires_ms + KEEP_AFTER_MS);
	kept = h->outcome;
	state = h->state;
	h->outcome = outcome_of(a->r);
	h->state = SHELL_FINISHED;
	h->ended_ms = clock_wall_ms();
	home_put(t, h);
	tos_value_free(h->outcome);
	h->outcome = kept;
	h->state = state;
	audit_event(k, t, "finished", m);
	rc = store_commit(t, outcome_taken, a);
	if (rc < 0)
		arrival_no_answer(a, rc, err_text(rc));
}

/* Did it come from that kernel, by its last hop record? */
static bool came_from(const struct resident *r, const char *kernel)
{
	struct hop hop = { .parts = NULL };
	struct slice bytes = { NULL, 0 };
	struct cose cose;
	bool yes;

	if (tos_len(r->hops))
		bytes.p = tos_as_bytes(tos_at(r->hops, tos_len(r->hops) - 1), &bytes.n);
	yes = bytes.p && cose_decode(bytes, &cose, NULL) == 0 &&
	      hop_decode(cose.payload, &hop, NULL) == 0 && strcmp(hop.from, kernel) == 0;
	hop_fini(&hop);
	return yes;
}

static void void_verb(struct kernel *k, struct request *rq)
{
	struct incarnation e;
	struct resident *r;
	size_t n;
	const uint8_t *id = tos_get_bytes(rq->args, "id", &n);

	if (!id || n != DIGEST_BYTES || incarnation_read(tos_get(rq->args, "e"), &e) < 0) {
		request_fail(rq, ERR_MALFORMED, "VOID lacks id or e");
		return;
	}
	r = resident_by_id(k, id, "");
	/* Only its source went on without it, or its home knows better. */
	if (r && strcmp(r->ticket.home, rq->from.kernel) != 0 &&
		!came_from(r, rq->from.kernel)) {
		struct tos_value *m = tos_map();

		tos_set(m, "carrier", tos_text(r->name));
		tos_set(m, "from", tos_text(rq->from.kernel));
		audit_event(k, NULL, "void-refused", m);
		request_fail(
			rq, ERR_DENIED, "%s did not come from %s", r->name, rq->from.kernel);
		return;
	}
	incarnation_learn(k, id, &e);
	if (r && incarnation_compare(&r->e, &e) < 0)
		resident_end(
			r, SHELL_EV_SUPERSEDE, "the source went on with a higher incarnation");
	request_ok(rq, NULL);
}

/* The home's wanted state. */
static void command_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	struct resident *r = resident_find(k, name);
	struct incarnation e;
	bool has_e = incarnation_read(tos_get(rq->args, "e"), &e) == 0;
	struct tos_value *out = tos_map();

	if (!r || strcmp(r->ticket.home, rq->from.kernel) != 0) {
		tos_value_free(out);
		request_fail(rq, ERR_NOT_FOUND, "%s is not at %s", name, k->config.name);
		return;
	}
	if (has_e && incarnation_compare(&r->e, &e) < 0 &&
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

/* The home asks whether we hold it. */
static void holds_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	struct resident *r = resident_find(k, name);
	AUTOBUF key = BUF_INIT, body = BUF_MAX(65536);
	struct tos_value *out = tos_map(), *m = NULL;
	size_t n;
	const uint8_t *id = tos_get_bytes(rq->args, "id", &n);

	if (r) {
		tos_set(out, "state", tos_text(shell_state_word(r->state)));
		tos_set(out, "n", tos_int((int64_t)r->n));
	} else if (id && n == DIGEST_BYTES) {
		buf_add(&key, id, n);
		if (store_get(k->store, T_GONE, key.data, key.len, &body, NULL) == 0 &&
			tos_decode(body.data, body.len, 0, &m) == 0) {
			tos_set(out, "state", tos_text("gone"));
			tos_set(out, "dest", tos_text(tos_get_text(m, "dest", "")));
		} else {
			tos_set(out, "state", tos_text("unknown"));
		}
		tos_value_free(m);
	}
	request_ok(rq, out);
}

const struct verb handoff_verbs[] = {
	{ "OFFER", offer_verb },
	{ "SEND", send_verb },
	{ "VOID", void_verb },
	{ "COMMAND", command_verb },
	{ "HOLDS", holds_verb },
	{ NULL, NULL },
};
