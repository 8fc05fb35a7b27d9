/*
 * Residents in the store: their rows, written when something of them must last, and read at the
 * start, by the thousand.
 */
#include "kernel/handoff/forced.h"
#include "kernel/carrier/family.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "kernel/carrier/account.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/automata.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/moves.h"
#include "kernel/handoff/restored.h"
#include "kernel/trust/trust.h"
#include "wire/pick.h"
#include "wire/tree.h"

#define DAY_MS        ((int64_t)86400000)
#define ROW_BYTES_MAX ((size_t)320 << 20)

void resident_key(const struct resident *r, struct buf *out)
{
	buf_add(out, r->id, DIGEST_BYTES);
}

/* What of a row is bytes already, and most of it: it is not made part of a tree to be encoded. */
struct row_bytes {
	const char *key;
	struct slice bytes;
};

/* As map keys are ordered: the encoding of a shorter one is less. */
static bool key_before(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);

	return n != m ? n < m : strcmp(a, b) < 0;
}

/* more: in the order of keys. */
static int row_encode(const struct tos_value *row, const struct row_bytes *more, size_t n_more,
	struct buf *out)
{
	size_t i = 0, j = 0, n = tos_len(row), bytes = 1024;

	for (size_t m = 0; m < n_more; m++)
		bytes += more[m].bytes.n + 32;
	buf_reserve(out, bytes);
	cbor_put_map(out, n + n_more);
	while (i < n || j < n_more) {
		const char *key = i < n ? tos_as_text(tos_key_at(row, i), "") : NULL;

		if (j < n_more && (!key || key_before(more[j].key, key))) {
			cbor_put_text(out, more[j].key);
			cbor_put_bytes(out, more[j].bytes.p, more[j].bytes.n);
			j++;
		} else {
			cbor_put_text(out, key);
			value_put(out, tos_value_at(row, i));
			i++;
		}
	}
	return buf_check(out);
}

/* All of it that is small. */
static struct tos_value *row_of(const struct resident *r)
{
	struct tos_value *row = tos_map(), *limits = tos_map();

	tos_set(row, "name", tos_text(r->name));
	clone_put(r, row);
	tos_set(row, "state",
		tos_text(shell_state_word(
			r->paused && r->state == SHELL_SUSPENDED ? SHELL_READY : r->state)));
	tos_set(row, "e", incarnation_value(&r->e));
	tos_set(row, "n", tos_int((int64_t)r->n));
	tos_set(row, "completed", tos_bool(r->completed));
	tos_set(row, "since", tos_int(r->since_ms));
	automata_put(r, row);
	if (r->fault)
		tos_set(row, "fault", tos_value_copy(r->fault));
	if (r->state == SHELL_DEPARTING) {
		/* What departs differs from what was sent only in the entry of the path. */
		tos_set(row, "path", tos_value_copy(r->path));
		tos_set(row, "dest", tos_text(r->dest));
		tos_set(row, "outcome", tos_bool(r->outcome_move));
		tos_set(row, "asking", tos_bool(r->asking));
	}
	for (int i = 0; i < LIMIT_COUNT; i++)
		tos_set(limits, limit_names[i], tos_int(r->usage.limit[i]));
	tos_set(row, "limits", limits);
	return row;
}

static void row_put(struct store_txn *t, struct resident *r)
{
	AUTOBUF key = BUF_INIT, env = BUF_MAX(ROW_BYTES_MAX), body = BUF_MAX(ROW_BYTES_MAX);
	struct tos_value *row = row_of(r);
	struct row_bytes more[3];
	size_t n = 0;

	if (r->state == SHELL_DEPARTING) {
		more[n++] = (struct row_bytes){ "hop", blob_slice(&r->hop_cose) };
	} else {
		resident_envelope(r, r->path, &env);
		more[n++] = (struct row_bytes){ "envelope", slice_buf(&env) };
	}
	if (r->code_changed)
		more[n++] = (struct row_bytes){ "code_here", blob_slice(&r->code) };
	if (r->state == SHELL_DEPARTING)
		more[n++] = (struct row_bytes){ "sent_envelope", blob_slice(&r->envelope) };
	resident_key(r, &key);
	if (row_encode(row, more, n, &body) == 0) {
		store_put(t, T_RESIDENT, key.data, key.len, body.data, body.len, 0);
		account_stored(r->k, STORED_RESIDENT, r->name, r->owner->name, body.len, 0);
	}
	tos_value_free(row);
}

void resident_put(struct store_txn *t, struct resident *r)
{
	if (r->ticket.fast && !r->saved && (r->hop_count > 0 || r->suffix[0]))
		return; /* in memory only from departure 0 on */
	r->completion_due = false;
	row_put(t, r);
	if (!r->saved) {
		struct code *code = map_find(r->k->codes, r->code_digest, DIGEST_BYTES);

		/* Kept a day longer than any carrier that runs it can be, and written again only
		 * when that moves on by a day. */
		int64_t until_ms = r->ticket.expires_ms + KEEP_AFTER_MS + 2 * DAY_MS;
		struct store_stats st;

		/* Only when nothing waits for the disk is it known that the row is there, and a
		 * transaction that failed since may have been the one that held it. */
		store_stats(r->k->store, &st);
		if (code && (until_ms > code->kept_until_ms + DAY_MS || st.queued ||
				    st.failures != code->kept_failures)) {
			code->kept_failures = st.failures;
			char hex[2 * DIGEST_BYTES + 1];

			store_put(t, T_CODE, r->code_digest, DIGEST_BYTES, code->bundle.p,
				code->bundle.n, until_ms);
			account_stored(r->k, STORED_CODE,
				text_hex(r->code_digest, DIGEST_BYTES, hex), r->owner->name,
				code->bundle.n, until_ms);
			code->kept_until_ms = until_ms;
		}
	}
	r->saved = true;
}

void resident_del(struct store_txn *t, struct resident *r)
{
	AUTOBUF key = BUF_INIT;

	resident_key(r, &key);
	store_del(t, T_RESIDENT, key.data, key.len);
	account_stored(r->k, STORED_RESIDENT, r->name, r->owner->name, 0, 0);
	r->saved = false;
}

static void saved(void *arg, int rc, const struct errmsg *em)
{
	(void)arg;
	if (rc < 0)
		log_error("a carrier's state could not be saved", KV_ERR(rc, em));
}

void resident_save(struct resident *r)
{
	struct store_txn *t;

	if (r->ending)
		return;
	t = store_begin(r->k->store);
	resident_put(t, r);
	store_commit(t, saved, r->k);
}

void resident_forced(struct resident *r)
{
	incarnation_learn(r->k, r->id, &r->e, r->ticket.expires_ms);
	resident_save(r);
}

/* What a row has, in the order in which it has them: see pick(). */
/* clang-format off */
#define ROW_FIELDS(X) \
	X(e) X(n) X(hop) X(dest) X(name) X(path) X(fault) X(since) X(state) X(asking) \
	X(clones) X(limits) X(suffix) X(outcome) X(automata) X(envelope) X(code_here) \
	X(completed) X(clone_base) X(sent_envelope)
/* clang-format on */

enum row_field {
#define FIELD(name) F_##name,
	ROW_FIELDS(FIELD)
#undef FIELD
		ROW_FIELD_COUNT
};

static const char *const row_fields[] = {
#define FIELD(name) #name,
	ROW_FIELDS(FIELD)
#undef FIELD
};

/* What travels, and who it is. */
static int read_carrier(
	struct resident *r, const struct slice f[ROW_FIELD_COUNT], struct errmsg *em)
{
	char suffix[sizeof(r->suffix)];
	int rc;

	pick_text(f[F_name], r->name, sizeof(r->name));
	rc = resident_load_envelope(
		r, pick_bytes(f[f[F_envelope].n ? F_envelope : F_sent_envelope]), em);
	if (rc == 0 && f[F_path].n) {
		tos_value_free(r->path);
		r->path = pick_value(f[F_path]);
	}
	if (rc == 0)
		/* An expired or revoked one is loaded all the same and ended by the rules for
		 * that. */
		rc = ticket_stored(
			blob_slice(&r->ticket_cose), &r->ticket, r->id, &r->owner, em);
	if (rc < 0)
		return rc;
	pick_text(f[F_suffix], suffix, sizeof(suffix));
	family_is(r, r->id, suffix);
	clone_load(r, f[F_clone_base], f[F_clones]);
	return family_budget(r, em);
}

/* Once for all that run it. */
static struct code *code_of(struct resident *r, struct errmsg *em)
{
	struct code *code = map_find(r->k->codes, r->code_digest, DIGEST_BYTES);

	return code ? code : code_find(r->k, r->code_digest, em);
}

static void read_limits(struct resident *r, struct slice limits)
{
	struct slice item[LIMIT_COUNT];

	if (pick(limits, limit_names, LIMIT_COUNT, item) < 0)
		return;
	for (int i = 0; i < LIMIT_COUNT; i++)
		r->usage.limit[i] = pick_int(item[i], 0);
}

static void read_departing(struct resident *r, const struct slice f[ROW_FIELD_COUNT])
{
	pick_text(f[F_dest], r->dest, sizeof(r->dest));
	r->outcome_move = pick_bool(f[F_outcome], false);
	r->asking = pick_bool(f[F_asking], false); /* until it is answered */
	blob_set(&r->hop_cose, pick_bytes(f[F_hop]));
	blob_set(&r->envelope, pick_bytes(f[F_sent_envelope]));
	r->n_undelivered = tos_len(r->undelivered);
	r->sent = true; /* after a restart a departing copy always counts as sent */
	r->in_doubt = true;
}

static void read_stay(
	struct resident *r, const struct slice f[ROW_FIELD_COUNT], const struct code *code)
{
	struct slice here = pick_bytes(f[F_code_here]);
	struct tos_value *automata = pick_value(f[F_automata]);

	automata_read(r, automata);
	tos_value_free(automata);
	if (here.n)
		blob_set(&r->code, here);
	else
		blob_share(&r->code, &code->bundle);
	r->code_changed = here.n > 0;
	cert_keep(&r->author, &code->author);
	incarnation_pick(f[F_e], &r->e);
	r->n = (uint64_t)pick_int(f[F_n], 0);
	r->completed = pick_bool(f[F_completed], false);
	r->since_ms = pick_int(f[F_since], 0);
	read_limits(r, f[F_limits]);
	r->fault = pick_value(f[F_fault]);
	if (r->state == SHELL_DEPARTING)
		read_departing(r, f);
	else
		shell_next(r->state, SHELL_EV_REBOOT, &r->state);
}

static void loaded(struct resident *r, size_t row_bytes, struct code *code)
{
	int64_t until_ms = r->ticket.expires_ms + KEEP_AFTER_MS + 2 * DAY_MS;
	char hex[2 * DIGEST_BYTES + 1];

	r->saved = r->loaded = true;
	r->quarantined = restored_holds_back(r->k);
	account_stored(r->k, STORED_RESIDENT, r->name, r->owner->name, row_bytes, 0);
	if (until_ms > code->counted_until_ms) {
		code->counted_until_ms = until_ms;
		account_stored(r->k, STORED_CODE, text_hex(r->code_digest, DIGEST_BYTES, hex),
			r->owner->name, code->bundle.n, until_ms);
	}
	account_open(r, false);
	r->report_due = true;
	rate_init(&r->post_rate, r->usage.limit[LIMIT_posts], clock_ms());
	rate_init(&r->log_rate, LINES_PER_S, clock_ms());
	map_put_str(r->k->residents, r->name, r);
}

static int load_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct resident *r = resident_new(k);
	struct slice f[ROW_FIELD_COUNT];
	struct errmsg em = { "" };
	struct code *code = NULL;
	char state[32];
	int rc = pick(body, row_fields, ROW_FIELD_COUNT, f);

	(void)expires_ms;
	(void)key;
	if (rc == 0)
		rc = read_carrier(r, f, &em);
	if (rc == 0) {
		code = code_of(r, &em);
		rc = code ? 0 : ERR_NOT_FOUND;
	}
	if (rc == 0) {
		pick_text(f[F_state], state, sizeof(state));
		rc = shell_state_parse(state);
		if (rc < 0)
			rc = err_set(&em, ERR_STORE, "unknown state");
		else
			r->state = (enum shell_state)rc;
	}
	if (rc < 0 || !code) {
		/* Nothing is dropped: the row stays in the store, the operator is told. */
		log_error("a carrier in the store could not be loaded; its row is kept",
			KV_STR("carrier", r->name), KV_ERR(rc, &em));
		metric_add(k->metrics, "residents_unloadable_total", NULL, 1);
		r->name[0] = 0;
		resident_free(r);
		return 0;
	}
	read_stay(r, f, code);
	loaded(r, body.n, code);
	return 0;
}

int residents_load(struct kernel *k, struct errmsg *em)
{
	struct resident *r;
	int64_t began = clock_ms();
	size_t it = 0;
	int rc;

	k->residents = map_new();
	rc = store_all(k->store, T_RESIDENT, load_row, k, em);
	while ((r = map_next(k->residents, &it, NULL, NULL)))
		if (r->state == SHELL_READY) {
			resident_trail(r, "restarted", "", "");
			if (!r->completed)
				resident_undelivered(r);
			resident_go_on(r);
		}
	if (map_size(k->residents))
		log_info("carriers loaded", KV_INT("carriers", map_size(k->residents)),
			KV_INT("ms", clock_ms() - began));
	return rc;
}
