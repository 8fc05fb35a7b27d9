/*
 * The store's writer thread: takes all transactions that came while the last fsync ran and
 * makes them one SQLite transaction. One that fails takes no other with it: the group is undone and
 * tried once more without it. Where that fails, or the whole of it does (a full disk rolls
 * everything back), each is tried alone.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"
#include "seal/seal.h"
#include "store/db.h"
#include "store/store_impl.h"

#define GROUP_MAX       4096
#define GROUP_BYTES_MAX ((size_t)64 << 20)
#define EXPIRE_ROWS     256
#define IDLE_MS         50 /* from then on the log may be given room */
#define KEY_SEQ         "store.seq"
#define KEY_BOOT        "store.boot"

static void put_be64(uint8_t out[8], uint64_t v)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(v >> (56 - 8 * i));
}

static uint64_t get_be64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

/* ---- statements */

static int prepare_table(struct writer *w, int i, struct errmsg *em)
{
	const char *name = store_table_names[i];
	int rc = db_prepare(w->db, &w->put[i], em,
		"INSERT INTO \"%s\" (key, body, expires) VALUES (?1, ?2, ?3)"
		" ON CONFLICT (key) DO UPDATE SET body = ?2, expires = ?3",
		name);

	if (rc == 0)
		rc = db_prepare(
			w->db, &w->del[i], em, "DELETE FROM \"%s\" WHERE key = ?1", name);
	if (rc == 0)
		rc = db_prepare(w->db, &w->expire[i], em,
			"DELETE FROM \"%s\" WHERE rowid IN (SELECT rowid FROM \"%s\""
			" WHERE expires > 0 AND expires <= ?1 LIMIT %d)",
			name, name, EXPIRE_ROWS);
	return rc;
}

static int prepare_all(struct writer *w, struct errmsg *em)
{
	const struct {
		sqlite3_stmt **stmt;
		const char *sql;
	} plain[] = {
		{ &w->audit,
			"INSERT INTO audit (seq, time, chain, body) VALUES (?1, ?2, ?3, ?4)" },
		{ &w->begin, "BEGIN IMMEDIATE" },
		{ &w->commit, "COMMIT" },
		{ &w->rollback, "ROLLBACK" },
	};
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(plain) && rc == 0; i++)
		rc = db_prepare(w->db, plain[i].stmt, em, "%s", plain[i].sql);
	for (int i = 0; i < STORE_TABLE_COUNT && rc == 0; i++)
		rc = prepare_table(w, i, em);
	return rc;
}

int writer_open(struct writer *w, const char *path, struct errmsg *em)
{
	int rc = db_open_writer(path, &w->db, em);

	if (rc < 0)
		return rc;
	log_watch(w);
	return prepare_all(w, em);
}

void writer_close(struct writer *w)
{
	sqlite3_stmt *s;

	while (w->db && (s = sqlite3_next_stmt(w->db, NULL)))
		sqlite3_finalize(s);
	sqlite3_close(w->db);
	w->db = NULL;
}

/* Run to the end and make ready for the next time. */
static int stmt_run(struct writer *w, sqlite3_stmt *s, struct errmsg *em)
{
	int rc = sqlite3_step(s) == SQLITE_DONE ? 0 : db_fail(w->db, em);

	sqlite3_reset(s);
	return rc;
}

static int row_put(struct writer *w, int table, struct slice key, struct slice body,
	int64_t expires_ms, struct errmsg *em)
{
	sqlite3_stmt *s = w->put[table];
	int rc;

	sqlite3_bind_blob64(s, 1, key.p, key.n, SQLITE_STATIC);
	/* An empty body is a blob of no bytes, not NULL. */
	sqlite3_bind_blob64(s, 2, body.n ? (const void *)body.p : "", body.n, SQLITE_STATIC);
	sqlite3_bind_int64(s, 3, expires_ms);
	rc = stmt_run(w, s, em);
	sqlite3_clear_bindings(s);
	return rc;
}

/* ---- numbers of the store itself */

static int number_load(struct writer *w, const char *key, uint64_t *out, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int rc = db_prepare(w->db, &s, em, "SELECT body FROM meta WHERE key = ?1");

	if (rc < 0)
		return rc;
	sqlite3_bind_blob(s, 1, key, (int)strlen(key), SQLITE_STATIC);
	switch (sqlite3_step(s)) {
	case SQLITE_DONE:
		*out = 0;
		break;
	case SQLITE_ROW:
		if (sqlite3_column_bytes(s, 0) == 8)
			*out = get_be64(sqlite3_column_blob(s, 0));
		else
			rc = err_set(em, ERR_STORE,
				"its record %s is damaged: restore a backup", key);
		break;
	default:
		rc = db_fail(w->db, em);
	}
	sqlite3_finalize(s);
	return rc;
}

static int number_save(struct writer *w, const char *key, uint64_t v, struct errmsg *em)
{
	uint8_t body[8];

	put_be64(body, v);
	return row_put(w, T_META, (struct slice){ (const uint8_t *)key, strlen(key) },
		(struct slice){ body, sizeof(body) }, 0, em);
}

int mark_load(struct writer *w, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int rc = number_load(w, KEY_SEQ, &w->mark.seq, em);

	if (rc == 0)
		rc = db_prepare(w->db, &s, em,
			"SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1");
	if (rc < 0)
		return rc;
	switch (sqlite3_step(s)) {
	case SQLITE_DONE:
		break;
	case SQLITE_ROW:
		w->mark.audit_seq = (uint64_t)sqlite3_column_int64(s, 0);
		if (sqlite3_column_bytes(s, 1) == 32)
			memcpy(w->mark.audit_head, sqlite3_column_blob(s, 1), 32);
		break;
	default:
		rc = db_fail(w->db, em);
	}
	sqlite3_finalize(s);
	return rc;
}

int boot_raise(struct writer *w, int64_t *count, struct errmsg *em)
{
	uint64_t n = 0;
	int rc = number_load(w, KEY_BOOT, &n, em);

	if (rc == 0)
		rc = number_save(
			w, KEY_BOOT, n + 1, em); /* its own transaction: durable on return */
	*count = (int64_t)n + 1;
	return rc;
}

void audit_chain(const uint8_t prev[32], uint64_t seq, int64_t time_ms, struct slice body,
	uint8_t out[32])
{
	/* The body goes in as its digest's input with everything else: one buffer, bounded by
	 * the body. */
	uint8_t small[32 + 16 + 1024];
	size_t n = 48 + body.n;
	uint8_t *p = n <= sizeof(small) ? small : mem_zero(n);

	memcpy(p, prev, 32);
	put_be64(p + 32, seq);
	put_be64(p + 40, (uint64_t)time_ms);
	if (body.n)
		memcpy(p + 48, body.p, body.n);
	digest_bytes(p, n, out);
	if (p != small)
		free(p);
}

/* ---- one transaction */

static int op_audit(struct writer *w, const struct op *op, struct errmsg *em)
{
	struct slice body = { op->data, op->n_body };
	uint64_t seq = w->mark.audit_seq + 1;
	uint8_t chain[32];
	int rc;

	audit_chain(w->mark.audit_head, seq, op->time_ms, body, chain);
	sqlite3_bind_int64(w->audit, 1, (sqlite3_int64)seq);
	sqlite3_bind_int64(w->audit, 2, op->time_ms);
	sqlite3_bind_blob(w->audit, 3, chain, sizeof(chain), SQLITE_STATIC);
	sqlite3_bind_blob64(w->audit, 4, body.p, body.n, SQLITE_STATIC);
	rc = stmt_run(w, w->audit, em);
	sqlite3_clear_bindings(w->audit);
	if (rc < 0)
		return rc;
	w->mark.audit_seq = seq;
	memcpy(w->mark.audit_head, chain, 32);
	return 0;
}

/* Each table has its fault point, in the same order. */
_Static_assert(FAULT_WRITE_META + T_ADMITTED == FAULT_WRITE_ADMITTED &&
		       FAULT_WRITE_META + T_HOME == FAULT_WRITE_HOME &&
		       FAULT_WRITE_META + STORE_TABLE_COUNT == FAULT_WRITE_AUDIT,
	"fault.h lists the tables in another order");

static int op_raise(struct writer *w, const struct op *op, struct errmsg *em)
{
	uint64_t numbers[2], boot = 0;
	int rc;

	memcpy(numbers, op->data, sizeof(numbers));
	if (numbers[0] > w->mark.seq)
		w->mark.seq = numbers[0];
	rc = number_load(w, KEY_BOOT, &boot, em);
	if (rc == 0 && numbers[1] > boot)
		rc = number_save(w, KEY_BOOT, numbers[1], em);
	return rc;
}

static int op_apply(struct writer *w, const struct op *op, struct errmsg *em)
{
	struct slice key = { op->data, op->n_key };
	int rc = 0;

	if (op->kind != OP_EXPIRE &&
		FAULT_FAILS(op->kind == OP_AUDIT ? FAULT_WRITE_AUDIT
						 : FAULT_WRITE_META + op->table))
		return err_set(em, ERR_STORE, "database or disk is full");
	switch (op->kind) {
	case OP_PUT:
		return row_put(w, (int)op->table, key,
			(struct slice){ op->data + op->n_key, op->n_body }, op->time_ms, em);
	case OP_DEL:
		sqlite3_bind_blob64(w->del[op->table], 1, key.p, key.n, SQLITE_STATIC);
		return stmt_run(w, w->del[op->table], em);
	case OP_AUDIT:
		return op_audit(w, op, em);
	case OP_RAISE:
		return op_raise(w, op, em);
	case OP_EXPIRE:
		w->more_expired = false;
		for (int i = 0; i < STORE_TABLE_COUNT && rc == 0; i++) {
			sqlite3_bind_int64(w->expire[i], 1, op->time_ms);
			rc = stmt_run(w, w->expire[i], em);
			w->more_expired |= rc == 0 && sqlite3_changes(w->db) == EXPIRE_ROWS;
		}
		return rc;
	}
	return ERR_STATE;
}

/* Apply t within the open transaction. What a failed one has done of itself is not undone here: its
 * group is. */
static int txn_apply(struct writer *w, struct store_txn *t)
{
	int rc = 0;

	for (const struct op *op = t->first; op && rc == 0; op = op->next)
		rc = op_apply(w, op, &t->em);
	t->rc = rc;
	return rc;
}

/* ---- a group */

static void group_rollback(struct writer *w, const struct store_mark *before)
{
	if (!sqlite3_get_autocommit(w->db))
		stmt_run(w, w->rollback, NULL);
	w->mark = *before;
}

/* 0: decided; each t->rc says how. 1: one of them failed by itself (its t->rc says so), and nothing of
 * any was applied. Otherwise nothing of any was, either; em says why. */
static int group_try(struct writer *w, struct store_txn *first, size_t n, struct errmsg *em)
{
	struct store_mark before = w->mark;
	size_t good = 0;
	int rc = stmt_run(w, w->begin, em);

	for (struct store_txn *t = first; rc == 0 && n > 0; t = t->next, n--) {
		must(t);
		if (t->rc < 0)
			continue;
		if (txn_apply(w, t) == 0)
			good++;
		else
			rc = 1;
	}
	if (rc == 0 && good == 0) {
		group_rollback(w, &before);
		return 0;
	}
	w->mark.seq += good;
	if (rc == 0)
		rc = number_save(w, KEY_SEQ, w->mark.seq, em);
	if (rc == 0 && FAULT_FAILS(FAULT_STORE_COMMIT))
		rc = err_set(em, ERR_STORE, "database or disk is full");
	if (rc == 0)
		rc = stmt_run(w, w->commit, em);
	if (rc != 0)
		db_synced(w->db);
	FAULT_AT(STORE_DURABLE);
	if (rc != 0)
		group_rollback(w, &before);
	return rc;
}

static void alone(struct writer *w, struct store_txn *t)
{
	int rc = group_try(w, t, 1, &t->em);

	if (rc < 0)
		t->rc = rc;
}

static void group_write(struct writer *w, struct txn_list *group)
{
	int rc = group->n > 1 ? group_try(w, group->first, group->n, NULL) : ERR_STATE;

	/* One that can't be written for what it is fails, and the rest has not failed. */
	if (rc == 1)
		rc = group_try(w, group->first, group->n, NULL);
	for (struct store_txn *t = group->first; t && rc != 0; t = t->next)
		if (t->rc == 0)
			alone(w, t);
}

/* ---- the thread; the mutex is held except while writing */

static void group_take(struct store *st, struct txn_list *group)
{
	size_t bytes = 0;

	if (!st->due && !st->stopping)
		return; /* nobody waits for what is there */
	while (st->queue.first && group->n < GROUP_MAX && bytes < GROUP_BYTES_MAX) {
		bytes += st->queue.first->bytes;
		txn_push(group, txn_pop(&st->queue));
	}
	st->due = st->queue.first != NULL;
}

static void group_report(struct store *st, struct txn_list *group, int64_t took_us)
{
	struct store_stats *s = &st->stats;
	struct store_txn *t;

	s->groups++;
	s->last_commit_us = (uint64_t)took_us;
	st->mark = st->w.mark;
	while ((t = txn_pop(group))) {
		if (t->rc < 0) {
			s->failures++;
			s->failed = s->failed || t->rc == ERR_STORE;
			snprintf(s->failure, sizeof(s->failure), "%s", err_show(t->rc, &t->em));
		} else {
			s->commits++;
			s->bytes += t->bytes;
			s->failed = false;
		}
		if (!t->waited) {
			txn_push(&st->done, t);
			continue;
		}
		txn_reported(st, t);
		t->finished = true;
	}
	pthread_cond_broadcast(&st->finished);
}

static void size_limit(struct writer *w, uint64_t max_bytes)
{
	char sql[80];
	uint64_t pages = max_bytes / 4096;

	if (max_bytes == w->max_bytes)
		return;
	w->max_bytes = max_bytes;
	if (max_bytes == 0 || pages > 0xfffffffe)
		pages = 0xfffffffe;
	snprintf(sql, sizeof(sql), "PRAGMA max_page_count=%llu", (unsigned long long)pages);
	db_exec(w->db, sql, NULL);
}

/* Nothing is to be written, with the mutex held. */
static void writer_idle(struct store *st)
{
	struct timespec until;

	if (!log_cramped(&st->w)) {
		pthread_cond_wait(&st->work, &st->mutex);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += IDLE_MS * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	if (pthread_cond_timedwait(&st->work, &st->mutex, &until) != ETIMEDOUT || st->due ||
		st->stopping)
		return;
	pthread_mutex_unlock(&st->mutex);
	log_extend(&st->w);
	pthread_mutex_lock(&st->mutex);
}

static void group_cancel(struct txn_list *group)
{
	for (struct store_txn *t = group->first; t; t = t->next)
		t->rc = err_set(
			&t->em, ERR_CANCELLED, "the store was closed before it was written");
}

void *writer_main(void *store)
{
	struct store *st = store;

	pthread_mutex_lock(&st->mutex);
	while (st->check.runs)
		pthread_cond_wait(&st->work, &st->mutex);
	for (;;) {
		struct txn_list group = { NULL, NULL, 0 };
		uint64_t max_bytes = st->max_bytes;
		int64_t begun_us;
		bool wake, abandoned = st->abandoned || st->check.rc < 0;

		group_take(st, &group);
		if (group.n == 0) {
			if (st->stopping)
				break;
			writer_idle(st);
			continue;
		}
		pthread_mutex_unlock(&st->mutex);
		begun_us = clock_us();
		size_limit(&st->w, max_bytes);
		if (abandoned)
			group_cancel(&group);
		else
			group_write(&st->w, &group);
		pthread_mutex_lock(&st->mutex);
		wake = st->done.n == 0;
		group_report(st, &group, clock_us() - begun_us);
		wake = wake && st->done.n > 0;
		if (wake && st->wake) {
			pthread_mutex_unlock(&st->mutex);
			st->wake(st->wake_arg);
			pthread_mutex_lock(&st->mutex);
		}
		if (log_due(&st->w, st->due)) {
			pthread_mutex_unlock(&st->mutex);
			log_copy(&st->w);
			pthread_mutex_lock(&st->mutex);
		}
	}
	st->ended = true;
	pthread_cond_broadcast(&st->finished);
	pthread_mutex_unlock(&st->mutex);
	return NULL;
}
