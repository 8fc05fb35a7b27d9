/*
 * Journal: rows that extensions keep in this kernel's store (doc/inboxes.md, "Journal"). A PUT or a
 * BATCH is answered when it is on the disk. Owns the table `journal`, whose keys are the
 * extension's first inbox, a zero byte, and the key that it chose: so each sees its own only, also
 * after it was restarted or replaced, and in a process of its own as well as in this one.
 *
 * What an extension may keep is bounded in rows and in bytes. The index counts what is durable; what
 * is being written is counted apart and at its full size, so that nothing slips past the bound.
 */
#include "kernel/services/journal.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"

#define KEY_BYTES_MAX 200
#define BATCH_MAX     1000
#define LIST_MOST     1000
#define LIST_BYTES    ((size_t)256 << 10) /* of values in one answer */
#define TICK_MS       60000
#define ROW_BYTES     64 /* counted for each row, besides key and value */
#define OWNER_MAX     64

struct journal_row {
	size_t bytes;
	int64_t expires_ms; /* wall; 0 never */
};

/* What one extension has. */
struct journal_share {
	char owner[OWNER_MAX];
	size_t rows, bytes;                 /* durable */
	size_t pending_rows, pending_bytes; /* being written */
};

struct journal {
	struct map *rows;   /* key in the table -> struct journal_row */
	struct map *shares; /* owner -> struct journal_share */
	int64_t tick_at_ms;
};

struct journal_op {
	uint8_t key[OWNER_MAX + KEY_BYTES_MAX + 1];
	size_t n_key, bytes; /* bytes 0: dropped */
	int64_t expires_ms;
};

/* A transaction under way. */
struct journal_write {
	struct request *rq;
	char owner[OWNER_MAX];
	size_t n, rows, bytes;
	struct journal_op *op;
};

/* ---- what there is */

static struct journal_share *share_get(struct kernel *k, const char *owner)
{
	struct journal_share *s = map_find_str(k->journal->shares, owner);

	if (!s) {
		s = mem_new(struct journal_share);
		snprintf(s->owner, sizeof(s->owner), "%s", owner);
		map_put_str(k->journal->shares, owner, s);
	}
	return s;
}

static void row_forget(struct kernel *k, struct journal_share *s, const void *key, size_t n)
{
	struct journal_row *r = map_del(k->journal->rows, key, n);

	if (!r)
		return;
	s->rows--;
	s->bytes -= r->bytes;
	free(r);
}

static void row_note(struct kernel *k, struct journal_share *s, const void *key, size_t n,
	size_t bytes, int64_t expires_ms)
{
	struct journal_row *r;

	row_forget(k, s, key, n);
	r = mem_new(struct journal_row);
	r->bytes = bytes;
	r->expires_ms = expires_ms;
	map_put(k->journal->rows, key, n, r);
	s->rows++;
	s->bytes += bytes;
}

/* The extension's part of a key in the table; false: not one of ours. */
static bool key_owner(struct slice key, char owner[OWNER_MAX])
{
	size_t n = strnlen((const char *)key.p, key.n);

	if (n == 0 || n >= OWNER_MAX || n >= key.n)
		return false;
	memcpy(owner, key.p, n + 1);
	return true;
}

static int load_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	char owner[OWNER_MAX];

	if (key_owner(key, owner))
		row_note(k, share_get(k, owner), key.p, key.n, key.n + body.n + ROW_BYTES,
			expires_ms);
	return 0;
}

int journal_load(struct kernel *k, struct errmsg *em)
{
	k->journal = mem_new(struct journal);
	k->journal->rows = map_new();
	k->journal->shares = map_new();
	return store_each(k->store, T_JOURNAL, (struct slice){ NULL, 0 }, load_row, k, em);
}

/* The store forgets expired rows by itself; so do we. */
void journal_tick(struct kernel *k, int64_t now_ms)
{
	struct journal *j = k->journal;
	int64_t wall_ms = clock_wall_ms();
	struct journal_row *r;
	const void *key;
	size_t it = 0, n;

	if (now_ms < j->tick_at_ms)
		return;
	j->tick_at_ms = now_ms + TICK_MS;
	while ((r = map_next(j->rows, &it, &key, &n))) {
		char owner[OWNER_MAX];

		if (r->expires_ms && r->expires_ms <= wall_ms &&
			key_owner((struct slice){ key, n }, owner))
			row_forget(k, share_get(k, owner), key, n);
	}
}

void journal_metrics(struct kernel *k)
{
	struct journal_share *s;
	size_t it = 0;
	char label[128];

	while ((s = map_next(k->journal->shares, &it, NULL, NULL))) {
		snprintf(label, sizeof(label), "extension=\"%s\"", s->owner);
		metric_set(k->metrics, "journal_rows", label, (double)s->rows);
		metric_set(k->metrics, "journal_bytes", label, (double)s->bytes);
	}
}

/* ---- requests */

/* "host0/Commit" -> "Commit": the firewall and inbox_dispatch() saw to it that it is one of ours. */
static const char *owner_of(const struct request *rq)
{
	const char *slash = strchr(rq->from.name, '/');

	return slash ? slash + 1 : rq->from.name;
}

/* The key in the table for the key that the extension gave; 0: it gave none that will do. */
static size_t key_make(const char *owner, const struct tos_value *key, bool empty_ok,
	uint8_t out[OWNER_MAX + KEY_BYTES_MAX + 1])
{
	size_t n, n_owner = strlen(owner) + 1;
	const uint8_t *p = tos_as_bytes(key, &n);

	if ((!p && !empty_ok) || n > KEY_BYTES_MAX || (n == 0 && !empty_ok) ||
		n_owner > OWNER_MAX)
		return 0;
	memcpy(out, owner, n_owner);
	if (p)
		memcpy(out + n_owner, p, n);
	return n_owner + n;
}

static void write_free(struct journal_write *w)
{
	free(w->op);
	free(w);
}

/* The index follows the disk, in the order of the transactions. */
static void on_written(void *arg, int rc, const struct errmsg *em)
{
	struct journal_write *w = arg;
	struct request *rq = w->rq;
	struct kernel *k = rq->k;
	struct journal_share *s = share_get(k, w->owner);

	FAULT_AT(JOURNAL_JOURNALED);
	s->pending_rows -= w->rows;
	s->pending_bytes -= w->bytes;
	for (size_t i = 0; rc == 0 && i < w->n; i++) {
		const struct journal_op *op = &w->op[i];

		if (op->bytes)
			row_note(k, s, op->key, op->n_key, op->bytes, op->expires_ms);
		else
			row_forget(k, s, op->key, op->n_key);
	}
	write_free(w);
	if (rc < 0)
		request_fail(rq, rc, "not written: %s", err_show(rc, em));
	else
		request_ok(rq, NULL);
}

/* What the operation adds to the extension's share at most; a row that is replaced counts as what it
 * grows by only once it has been written. */
static int op_read(struct journal_write *w, struct store_txn *t, const struct tos_value *key,
	const struct tos_value *value, const struct tos_value *expires, struct errmsg *em)
{
	struct journal_op *op = &w->op[w->n];
	AUTOFREE uint8_t *body = NULL;
	size_t n = 0;
	int rc;

	op->n_key = key_make(w->owner, key, false, op->key);
	if (!op->n_key)
		return err_set(em, ERR_MALFORMED, "a key is a text or bytes, 1 to %d of them",
			KEY_BYTES_MAX);
	w->n++;
	if (!value) {
		store_del(t, T_JOURNAL, op->key, op->n_key);
		return 0;
	}
	rc = tos_encode(value, &body, &n);
	if (rc < 0)
		return err_set(em, rc, "a value does not encode");
	op->expires_ms = tos_as_int(expires, 0);
	op->bytes = op->n_key + n + ROW_BYTES;
	w->rows++;
	w->bytes += op->bytes;
	store_put(t, T_JOURNAL, op->key, op->n_key, body, n, op->expires_ms);
	return 0;
}

static bool key_before(const struct journal_write *w, size_t at)
{
	const struct journal_op *op = &w->op[at];

	for (size_t i = 0; i < at; i++)
		if (w->op[i].n_key == op->n_key &&
			memcmp(w->op[i].key, op->key, op->n_key) == 0)
			return true;
	return false;
}

/* Rows and bytes that go when this is written, so that a share that is full can be tidied up and
 * its rows be replaced. A row goes once, however often the batch names it. */
static void frees(struct kernel *k, const struct journal_write *w, size_t *rows, size_t *bytes)
{
	*rows = *bytes = 0;
	for (size_t i = 0; i < w->n; i++) {
		const struct journal_row *r =
			map_find(k->journal->rows, w->op[i].key, w->op[i].n_key);

		if (r && key_before(w, i))
			continue;
		*rows += r != NULL;
		*bytes += r ? r->bytes : 0;
	}
}

static int room_check(struct kernel *k, const struct journal_write *w, struct errmsg *em)
{
	const struct journal_share *s = share_get(k, w->owner);
	static struct log_rate rate;
	size_t rows, bytes;
	char label[128];

	if (w->rows == 0)
		return 0; /* it only gets less */
	frees(k, w, &rows, &bytes);
	if (s->rows + s->pending_rows + w->rows - rows <= k->config.journal_rows &&
		s->bytes + s->pending_bytes + w->bytes - bytes <= k->config.journal_bytes)
		return 0;
	snprintf(label, sizeof(label), "limit=\"journal\"");
	metric_add(k->metrics, "limits_exceeded_total", label, 1);
	if (log_rate_ok(&rate, 1))
		log_warning("an extension's journal is full", KV_STR("extension", w->owner),
			KV_INT("rows", (int64_t)s->rows), KV_INT("bytes", (int64_t)s->bytes));
	return err_set(em, ERR_LIMIT,
		"limits journal_rows, journal_bytes: %s has %zu rows of %u and %zu bytes of %llu",
		w->owner, s->rows + s->pending_rows, k->config.journal_rows,
		s->bytes + s->pending_bytes, (unsigned long long)k->config.journal_bytes);
}

static void write_begin(struct journal_write *w, struct store_txn *t, int rc, struct errmsg *em)
{
	struct request *rq = w->rq;
	struct journal_share *s = share_get(rq->k, w->owner);

	if (rc == 0)
		rc = room_check(rq->k, w, em);
	if (rc < 0) {
		store_cancel(t);
		write_free(w);
		request_fail(rq, rc, "%s", err_show(rc, em));
		return;
	}
	s->pending_rows += w->rows;
	s->pending_bytes += w->bytes;
	FAULT_AT(JOURNAL_COMMIT);
	rc = store_commit(t, on_written, w);
	if (rc < 0) {
		s->pending_rows -= w->rows;
		s->pending_bytes -= w->bytes;
		write_free(w);
		request_fail(rq, rc, "the store takes no more just now");
		return;
	}
	metric_add(rq->k->metrics, "journal_writes_total", NULL, 1);
}

static struct journal_write *write_new(struct request *rq, size_t n)
{
	struct journal_write *w = mem_new(struct journal_write);

	w->rq = rq;
	w->op = mem_zero(n * sizeof(*w->op));
	snprintf(w->owner, sizeof(w->owner), "%s", owner_of(rq));
	return w;
}

static void put_verb(struct kernel *k, struct request *rq)
{
	struct journal_write *w = write_new(rq, 1);
	struct store_txn *t = store_begin(k->store);
	const struct tos_value *value = tos_get(rq->args, "value");
	struct errmsg em = { "" };
	int rc = value ? op_read(w, t, tos_get(rq->args, "key"), value,
				 tos_get(rq->args, "expires"), &em)
		       : err_set(&em, ERR_MALFORMED, "PUT wants {key, value}");

	write_begin(w, t, rc, &em);
}

static void drop_verb(struct kernel *k, struct request *rq)
{
	struct journal_write *w = write_new(rq, 1);
	struct store_txn *t = store_begin(k->store);
	struct errmsg em = { "" };

	write_begin(w, t, op_read(w, t, tos_get(rq->args, "key"), NULL, NULL, &em), &em);
}

static void batch_verb(struct kernel *k, struct request *rq)
{
	const struct tos_value *ops = tos_get(rq->args, "ops");
	size_t n = tos_len(ops);
	struct errmsg em = { "" };
	struct journal_write *w;
	struct store_txn *t;
	int rc = 0;

	if (tos_type(ops) != TOS_ARRAY || n < 1 || n > BATCH_MAX) {
		request_fail(rq, ERR_MALFORMED, "BATCH wants {ops: [...]}, 1 to %d of them",
			BATCH_MAX);
		return;
	}
	w = write_new(rq, n);
	t = store_begin(k->store);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		const struct tos_value *op = tos_at(ops, i);

		rc = op_read(w, t, tos_get(op, "key"), tos_get(op, "value"),
			tos_get(op, "expires"), &em);
	}
	write_begin(w, t, rc, &em);
}

static void get_verb(struct kernel *k, struct request *rq)
{
	uint8_t key[OWNER_MAX + KEY_BYTES_MAX + 1];
	size_t n = key_make(owner_of(rq), tos_get(rq->args, "key"), false, key);
	AUTOBUF body = BUF_INIT;
	struct errmsg em = { "" };
	struct tos_value *v = NULL, *out;
	int rc = n ? store_get(k->store, T_JOURNAL, key, n, &body, &em)
		   : err_set(&em, ERR_MALFORMED, "GET wants {key}");

	if (rc == 0)
		rc = tos_decode(body.data, body.len, 0, &v);
	if (rc < 0) {
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	out = tos_map();
	tos_set(out, "value", v);
	request_ok(rq, out);
}

struct listing {
	uint8_t prefix[OWNER_MAX + KEY_BYTES_MAX + 1], after[OWNER_MAX + KEY_BYTES_MAX + 1];
	size_t n_owner, n_prefix, n_after;
	struct tos_value *rows;
	size_t most, bytes;
	bool more;
};

static int list_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct listing *l = arg;
	struct tos_value *row, *v = NULL;

	int order = memcmp(key.p, l->prefix, key.n < l->n_prefix ? key.n : l->n_prefix);

	if (order != 0 || key.n < l->n_prefix)
		return order > 0; /* behind the prefix: that was all */
	if (l->n_after && key.n == l->n_after && memcmp(key.p, l->after, key.n) == 0)
		return 0;
	/* One that is larger than an answer should be goes alone: behind it there may be others. */
	if (tos_len(l->rows) >= l->most ||
		(tos_len(l->rows) > 0 && l->bytes + body.n > LIST_BYTES)) {
		l->more = true;
		return 1;
	}
	if (tos_decode(body.p, body.n, 0, &v) < 0)
		return 0;
	l->bytes += key.n + body.n;
	row = tos_map();
	tos_set(row, "key", tos_bytes(key.p + l->n_owner, key.n - l->n_owner));
	tos_set(row, "value", v);
	if (expires_ms)
		tos_set(row, "expires", tos_int(expires_ms));
	tos_push(l->rows, row);
	return 0;
}

static void list_verb(struct kernel *k, struct request *rq)
{
	struct listing l = { .n_owner = strlen(owner_of(rq)) + 1 };
	int64_t most = tos_get_int(rq->args, "most", LIST_MOST);
	const struct tos_value *after = tos_get(rq->args, "after");
	struct errmsg em = { "" };
	struct tos_value *out;
	struct slice from;
	int rc;

	l.n_prefix = key_make(owner_of(rq), tos_get(rq->args, "prefix"), true, l.prefix);
	l.n_after = after ? key_make(owner_of(rq), after, false, l.after) : 0;
	if (!l.n_prefix || (after && !l.n_after)) {
		request_fail(rq, ERR_MALFORMED, "LIST wants {[prefix], [after], [most]}");
		return;
	}
	l.most = most > 0 && most < LIST_MOST ? (size_t)most : LIST_MOST;
	l.rows = tos_array();
	from = l.n_after ? (struct slice){ l.after, l.n_after }
			 : (struct slice){ l.prefix, l.n_prefix };
	rc = store_each(k->store, T_JOURNAL, from, list_row, &l, &em);
	if (rc < 0) {
		tos_value_free(l.rows);
		request_fail(rq, rc, "%s", err_show(rc, &em));
		return;
	}
	out = tos_map();
	tos_set(out, "rows", l.rows);
	tos_set(out, "more", tos_bool(l.more));
	request_ok(rq, out);
}

/* restored_ms: what was written before that wall time may be missing. */
static void info_verb(struct kernel *k, struct request *rq)
{
	const struct journal_share *s = share_get(k, owner_of(rq));
	struct tos_value *out = tos_map();

	tos_set(out, "rows", tos_int((int64_t)s->rows));
	tos_set(out, "bytes", tos_int((int64_t)s->bytes));
	tos_set(out, "most_rows", tos_int(k->config.journal_rows));
	tos_set(out, "most_bytes", tos_int((int64_t)k->config.journal_bytes));
	tos_set(out, "restored_ms", tos_int(k->restored_ms));
	request_ok(rq, out);
}

const struct verb journal_verbs[] = {
	{ "PUT", put_verb },
	{ "DROP", drop_verb },
	{ "BATCH", batch_verb },
	{ "GET", get_verb },
	{ "LIST", list_verb },
	{ "INFO", info_verb },
	{ NULL, NULL },
};
