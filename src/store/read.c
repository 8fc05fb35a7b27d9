/* Reading the store: the loop thread's own connection, short statements, what is committed. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "store/db.h"
#include "store/store_impl.h"

static int read_fail(struct store *st, struct errmsg *em)
{
	return err_wrap(em, db_fail(st->r, em), "store %s", st->path);
}

static struct slice column(sqlite3_stmt *s, int i)
{
	/* The pointer first, then the length: SQLite wants this order. */
	const uint8_t *p = sqlite3_column_blob(s, i);

	return (struct slice){ p, (size_t)sqlite3_column_bytes(s, i) };
}

int store_get(struct store *st, enum store_table tb, const void *key, size_t n_key,
	struct buf *body, struct errmsg *em)
{
	sqlite3_stmt *s = st->get[tb];
	struct slice found;
	int rc;

	if (n_key == 0 || n_key > STORE_KEY_MAX)
		return err_set(em, ERR_NOT_FOUND, "no record has a key of %zu bytes", n_key);
	sqlite3_bind_blob64(s, 1, key, n_key, SQLITE_STATIC);
	sqlite3_bind_int64(s, 2, clock_wall_ms());
	switch (sqlite3_step(s)) {
	case SQLITE_ROW:
		found = column(s, 0);
		rc = buf_add(body, found.p, found.n);
		if (rc < 0)
			err_set(em, rc, "a record of %zu bytes", found.n);
		break;
	case SQLITE_DONE:
		rc = err_set(em, ERR_NOT_FOUND, "no such record in %s", store_table_names[tb]);
		break;
	default:
		rc = read_fail(st, em);
	}
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return rc;
}

static int walk(
	struct store *st, sqlite3_stmt *s, store_each_fn *fn, void *arg, struct errmsg *em)
{
	int step = SQLITE_DONE, rc = 0;

	sqlite3_bind_int64(s, 1, clock_wall_ms());
	while (rc == 0 && (step = sqlite3_step(s)) == SQLITE_ROW)
		rc = fn(arg, column(s, 0), column(s, 1), sqlite3_column_int64(s, 2));
	if (rc == 0 && step != SQLITE_DONE)
		rc = read_fail(st, em);
	sqlite3_finalize(s);
	return rc;
}

int store_each(struct store *st, enum store_table tb, struct slice from, store_each_fn *fn,
	void *arg, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	/* A statement of its own, so that the callback may go through a table as well. */
	int rc = db_prepare(st->r, &s, em,
		"SELECT key, body, expires FROM \"%s\" WHERE key >= ?2"
		" AND (expires = 0 OR expires > ?1) ORDER BY key",
		store_table_names[tb]);

	if (rc < 0)
		return err_wrap(em, rc, "store %s", st->path);
	sqlite3_bind_blob64(s, 2, from.n ? (const void *)from.p : "", from.n, SQLITE_STATIC);
	return walk(st, s, fn, arg, em);
}

int store_all(
	struct store *st, enum store_table tb, store_each_fn *fn, void *arg, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int rc = db_prepare(st->r, &s, em, STORE_ALL_SQL, store_table_names[tb]);

	return rc < 0 ? err_wrap(em, rc, "store %s", st->path) : walk(st, s, fn, arg, em);
}

int store_some(struct store *st, enum store_table tb, int64_t *at, size_t most,
	store_each_fn *fn, void *arg, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int step = SQLITE_DONE;
	size_t n = 0;
	int rc = db_prepare(st->r, &s, em,
		"SELECT key, body, expires, rowid FROM \"%s\" NOT INDEXED"
		" WHERE rowid > ?2 AND (expires = 0 OR expires > ?1) ORDER BY rowid LIMIT ?3",
		store_table_names[tb]);

	if (rc < 0)
		return err_wrap(em, rc, "store %s", st->path);
	sqlite3_bind_int64(s, 1, clock_wall_ms());
	sqlite3_bind_int64(s, 2, *at);
	sqlite3_bind_int64(s, 3, most > INT64_MAX ? INT64_MAX : (int64_t)most);
	while (rc == 0 && (step = sqlite3_step(s)) == SQLITE_ROW) {
		*at = sqlite3_column_int64(s, 3);
		n++;
		rc = fn(arg, column(s, 0), column(s, 1), sqlite3_column_int64(s, 2));
	}
	if (rc == 0 && step != SQLITE_DONE)
		rc = read_fail(st, em);
	sqlite3_finalize(s);
	return rc != 0 ? rc : n == most;
}

int store_audit_each(struct store *st, uint64_t after, size_t most, store_audit_fn *fn,
	void *arg, struct errmsg *em)
{
	sqlite3_stmt *s = NULL;
	int step = SQLITE_DONE;
	int rc = db_prepare(st->r, &s, em,
		"SELECT seq, time, chain, body FROM audit WHERE seq > ?1 ORDER BY seq LIMIT "
		"?2");

	if (rc < 0)
		return err_wrap(em, rc, "store %s", st->path);
	sqlite3_bind_int64(s, 1, after > INT64_MAX ? INT64_MAX : (int64_t)after);
	sqlite3_bind_int64(s, 2, most > INT64_MAX ? INT64_MAX : (int64_t)most);
	while (rc == 0 && (step = sqlite3_step(s)) == SQLITE_ROW) {
		struct slice chain = column(s, 2);
		uint8_t digest[32] = { 0 };

		if (chain.n == sizeof(digest))
			memcpy(digest, chain.p, sizeof(digest));
		rc = fn(arg, (uint64_t)sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1),
			digest, column(s, 3));
	}
	if (rc == 0 && step != SQLITE_DONE)
		rc = read_fail(st, em);
	sqlite3_finalize(s);
	return rc;
}

static int chain_step(
	void *arg, uint64_t seq, int64_t time_ms, const uint8_t chain[32], struct slice body)
{
	struct store_audit_walk *c = arg;
	uint8_t want[32];

	audit_chain(c->head, seq, time_ms, body, want);
	if (seq != c->seq + 1 || memcmp(want, chain, 32) != 0) {
		c->bad = c->seq + 1; /* also the number of a record that was taken out */
		return 1;
	}
	c->seq = seq;
	memcpy(c->head, chain, 32);
	return 0;
}

int store_audit_walk(
	struct store *st, struct store_audit_walk *w, size_t most, struct errmsg *em)
{
	uint64_t from = w->seq;
	int rc = store_audit_each(st, from, most, chain_step, w, em);

	if (rc < 0)
		return rc;
	return !w->bad && w->seq - from == most;
}

int store_audit_check(struct store *st, uint64_t *bad, struct errmsg *em)
{
	struct store_audit_walk c = { 0 };
	int rc = store_audit_walk(st, &c, SIZE_MAX, em);

	if (rc < 0)
		return rc;
	*bad = c.bad;
	return 0;
}
