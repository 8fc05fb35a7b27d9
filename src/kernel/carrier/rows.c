/*
 * Residents in the store: their rows, written when something of them must last. They are read by
 * loading.c.
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
