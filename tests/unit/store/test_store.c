/*
 * Claims about the store, on real files in a folder of the test's own. What must survive a kill
 * is tried with a child that is killed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "store/store.h"

struct place {
	char dir[64], path[96];
	int wake[2];
};

static int place_make(void **state)
{
	struct place *p = mem_new(struct place);

	snprintf(p->dir, sizeof(p->dir), "/tmp/test_store.XXXXXX");
	if (!mkdtemp(p->dir) || pipe2(p->wake, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	snprintf(p->path, sizeof(p->path), "%s/store.db", p->dir);
	*state = p;
	return 0;
}

static int place_drop(void **state)
{
	static const char *const names[] = { "", "-wal", "-shm", ".lock", "-journal" };
	struct place *p = *state;
	char name[128];

	chmod(p->dir, 0700);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(name, sizeof(name), "%s%s", p->path, names[i]);
		unlink(name);
	}
	rmdir(p->dir);
	close(p->wake[0]);
	close(p->wake[1]);
	free(p);
	return 0;
}

static void on_wake(void *arg)
{
	struct place *p = arg;

	(void)!write(p->wake[1], "w", 1);
}

static struct store *opened(struct place *p)
{
	struct store *st = NULL;
	struct errmsg em = { "" };

	if (store_open(p->path, on_wake, p, &st, &em) < 0)
		fail_msg("%s", em.text);
	return st;
}

/* What a loop does: wait for the signal, then poll. */
static void loop_once(struct place *p, struct store *st)
{
	struct pollfd fd = { .fd = p->wake[0], .events = POLLIN };
	char drop[64];

	assert_int_equal(poll(&fd, 1, 20000), 1);
	while (read(p->wake[0], drop, sizeof(drop)) > 0)
		;
	store_poll(st);
}

static void put(struct store_txn *t, enum store_table tb, const char *key, const char *body)
{
	store_put(t, tb, key, strlen(key), body, strlen(body), 0);
}

static void put_now(struct store *st, enum store_table tb, const char *key, const char *body,
	int64_t expires_ms)
{
	struct store_txn *t = store_begin(st);
	struct errmsg em = { "" };

	store_put(t, tb, key, strlen(key), body, strlen(body), expires_ms);
	if (store_commit_wait(t, &em) < 0)
		fail_msg("%s", em.text);
}

static int get(struct store *st, enum store_table tb, const char *key, char *out, size_t cap)
{
	AUTOBUF b = BUF_INIT;
	int rc = store_get(st, tb, key, strlen(key), &b, NULL);

	snprintf(out, cap, "%s", buf_cstr(&b));
	return rc;
}

static void assert_record(
	struct store *st, enum store_table tb, const char *key, const char *want)
{
	char body[256];

	assert_int_equal(get(st, tb, key, body, sizeof(body)), want ? 0 : ERR_NOT_FOUND);
	assert_string_equal(body, want ? want : "");
}

struct result {
	int n, rc[64];
};

static void on_done(void *arg, int rc, const struct errmsg *em)
{
	struct result *r = arg;

	assert_true((rc == 0) == (em == NULL));
	r->rc[r->n++] = rc;
}

/* ---- reading and writing */

static void what_was_reported_durable_is_read_back(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct result r = { 0 };
	struct store_txn *t = store_begin(st);

	put(t, T_RESIDENT, "a", "one");
	put(t, T_RESIDENT, "b", "");
	put(t, T_GONE, "a", "other table");
	store_del(t, T_RESIDENT, "none", 4);
	assert_int_equal(store_commit(t, on_done, &r), 0);
	assert_int_equal(r.n, 0); /* never before store_poll() */
	loop_once(p, st);
	assert_int_equal(r.n, 1);
	assert_int_equal(r.rc[0], 0);
	assert_record(st, T_RESIDENT, "a", "one");
	assert_record(st, T_RESIDENT, "b", "");
	assert_record(st, T_GONE, "a", "other table");
	assert_record(st, T_RESIDENT, "c", NULL);
	put_now(st, T_RESIDENT, "a", "two", 0);
	assert_record(st, T_RESIDENT, "a", "two");
	t = store_begin(st);
	store_del(t, T_RESIDENT, "a", 1);
	assert_int_equal(store_commit_wait(t, NULL), 0);
	assert_record(st, T_RESIDENT, "a", NULL);
	store_close(st, 1000);
	st = opened(p);
	assert_record(st, T_RESIDENT, "b", "");
	assert_record(st, T_GONE, "a", "other table");
	store_close(st, 1000);
}

static void a_cancelled_transaction_leaves_nothing(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *t = store_begin(st);
	uint64_t seq = store_seq(st);

	put(t, T_RESIDENT, "a", "one");
	store_cancel(t);
	assert_record(st, T_RESIDENT, "a", NULL);
	assert_true(store_seq(st) == seq);
	store_close(st, 1000);
}

static void results_come_in_the_order_of_submission(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct result r = { 0 };
	char key[16];

	for (int i = 0; i < 50; i++) {
		struct store_txn *t = store_begin(st);

		snprintf(key, sizeof(key), "k%02d", i);
		put(t, T_HOME, key, "x");
		if (i % 10 == 5) /* a record that can't be: its transaction fails, its
				    neighbours don't */
			store_put(t, T_HOME, "", 0, "x", 1, 0);
		assert_int_equal(store_commit(t, on_done, &r), 0);
	}
	while (r.n < 50)
		loop_once(p, st);
	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "k%02d", i);
		assert_int_equal(r.rc[i], i % 10 == 5 ? ERR_TOO_LARGE : 0);
		assert_record(st, T_HOME, key, i % 10 == 5 ? NULL : "x");
	}
	assert_true(store_seq(st) == 45);
	store_close(st, 1000);
}

static int collect(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	char *out = arg;

	(void)expires_ms;
	strncat(out, (const char *)key.p, key.n);
	strcat(out, "=");
	strncat(out, (const char *)body.p, body.n);
	strcat(out, " ");
	return key.p[0] == 's' ? 77 : 0;
}

static void records_come_in_key_order_until_the_callback_says_stop(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	char out[200] = "";

	put_now(st, T_PEER, "c", "3", 0);
	put_now(st, T_PEER, "a", "1", 0);
	put_now(st, T_PEER, "b", "2", 0);
	put_now(st, T_PEER, "bb", "22", 0);
	assert_int_equal(
		store_each(st, T_PEER, (struct slice){ NULL, 0 }, collect, out, NULL), 0);
	assert_string_equal(out, "a=1 b=2 bb=22 c=3 ");
	out[0] = 0;
	assert_int_equal(store_all(st, T_PEER, collect, out, NULL), 0);
	assert_string_equal(out, "c=3 a=1 b=2 bb=22 "); /* as they were written */
	out[0] = 0;
	assert_int_equal(store_each(st, T_PEER, (struct slice){ (const uint8_t *)"b", 1 },
				 collect, out, NULL),
		0);
	assert_string_equal(out, "b=2 bb=22 c=3 ");
	put_now(st, T_PEER, "s", "stop", 0);
	put_now(st, T_PEER, "t", "never", 0);
	out[0] = 0;
	assert_int_equal(store_each(st, T_PEER, (struct slice){ (const uint8_t *)"c", 1 },
				 collect, out, NULL),
		77);
	assert_string_equal(out, "c=3 s=stop ");
	out[0] = 0;
	assert_int_equal(store_all(st, T_PEER, collect, out, NULL), 77);
	assert_string_equal(out, "c=3 a=1 b=2 bb=22 s=stop ");
	store_close(st, 1000);
}

static void records_come_in_pieces_with_what_is_written_in_between(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	char out[200] = "";
	int64_t at = 0;

	put_now(st, T_HOME, "c", "3", 0);
	put_now(st, T_HOME, "old", "x", clock_wall_ms() - 1);
	put_now(st, T_HOME, "a", "1", 0);
	put_now(st, T_HOME, "b", "2", 0);
	assert_int_equal(store_some(st, T_HOME, &at, 2, collect, out, NULL), 1);
	assert_string_equal(out, "c=3 a=1 ");
	put_now(st, T_HOME, "d", "4", 0);
	assert_int_equal(store_some(st, T_HOME, &at, 2, collect, out, NULL), 1);
	assert_int_equal(store_some(st, T_HOME, &at, SIZE_MAX, collect, out, NULL), 0);
	assert_string_equal(out, "c=3 a=1 b=2 d=4 ");
	put_now(st, T_HOME, "s", "stop", 0);
	assert_int_equal(store_some(st, T_HOME, &at, SIZE_MAX, collect, out, NULL), 77);
	store_close(st, 1000);
}

#define AHEAD_ROWS 700 /* some batches, and among them rows that fit into none */

struct looked {
	size_t bytes;
	uint8_t first, last;
};

static void look(struct slice key, struct slice body, void *note)
{
	struct looked *l = note;

	assert_int_equal(key.n, 4);
	l->bytes = body.n;
	l->first = body.p[0];
	l->last = body.p[body.n - 1];
}

struct taking {
	size_t n, stop_at;
};

static size_t ahead_bytes(size_t i)
{
	return i % 100 == 7 ? 300000 : i % 100 == 8 ? 131068 : 1 + i * 13;
}

static int take_seen(
	void *arg, struct slice key, struct slice body, int64_t expires_ms, void *note)
{
	struct taking *t = arg;
	const struct looked *l = note;
	char name[8];

	snprintf(name, sizeof(name), "%04zu", t->n);
	assert_memory_equal(key.p, name, 4);
	assert_int_equal(expires_ms, 0);
	assert_int_equal(body.n, ahead_bytes(t->n));
	for (size_t i = 0; i < body.n; i++)
		if (body.p[i] != (uint8_t)t->n)
			fail_msg("byte %zu of row %zu", i, t->n);
	assert_int_equal(l->bytes, body.n);
	assert_int_equal(l->first, (uint8_t)t->n);
	assert_int_equal(l->last, (uint8_t)t->n);
	return ++t->n == t->stop_at ? 77 : 0;
}

static void records_read_ahead_are_the_same_each_with_what_was_seen_in_it(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *txn = store_begin(st);
	struct taking t = { 0, 0 };
	uint8_t *body = malloc(300000);
	struct errmsg em = { "" };
	char name[8];

	assert_int_equal(
		store_ahead(st, T_PEER, look, sizeof(struct looked), take_seen, &t, NULL), 0);
	assert_int_equal(t.n, 0);
	for (size_t i = 0; i < AHEAD_ROWS; i++) {
		memset(body, (int)(uint8_t)i, ahead_bytes(i));
		snprintf(name, sizeof(name), "%04zu", i);
		store_put(txn, T_PEER, name, 4, body, ahead_bytes(i), 0);
	}
	free(body);
	assert_int_equal(store_commit_wait(txn, &em), 0);
	put_now(st, T_PEER, "none", "expired", clock_wall_ms() - 1);
	assert_int_equal(
		store_ahead(st, T_PEER, look, sizeof(struct looked), take_seen, &t, NULL), 0);
	assert_int_equal(t.n, AHEAD_ROWS);
	/* Wherever it is told to stop, it does: also behind one that was lent. */
	for (size_t stop = 1; stop <= AHEAD_ROWS; stop += stop < 10 ? 1 : 69) {
		t = (struct taking){ 0, stop };
		assert_int_equal(store_ahead(st, T_PEER, look, sizeof(struct looked), take_seen,
					 &t, NULL),
			77);
		assert_int_equal(t.n, stop);
	}
	store_close(st, 1000);
}

static void expired_records_are_not_found_and_then_removed(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	int64_t now = clock_wall_ms();
	char out[200] = "";
	sqlite3 *db;
	sqlite3_stmt *s;

	put_now(st, T_ANSWER, "old", "x", now - 1);
	put_now(st, T_ANSWER, "new", "y", now + 3600000);
	put_now(st, T_ANSWER, "for ever", "z", 0);
	assert_record(st, T_ANSWER, "old", NULL);
	assert_record(st, T_ANSWER, "new", "y");
	assert_int_equal(
		store_each(st, T_ANSWER, (struct slice){ NULL, 0 }, collect, out, NULL), 0);
	assert_string_equal(out, "for ever=z new=y ");
	out[0] = 0;
	assert_int_equal(store_all(st, T_ANSWER, collect, out, NULL), 0);
	assert_string_equal(out, "new=y for ever=z ");
	assert_int_equal(store_expire(st), 0);
	assert_int_equal(store_expire(st), 0); /* one at a time */
	loop_once(p, st);
	store_close(st, 1000);
	assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
	sqlite3_prepare_v2(db, "SELECT count(*) FROM answer", -1, &s, NULL);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	assert_int_equal(sqlite3_column_int(s, 0), 2);
	sqlite3_finalize(s);
	sqlite3_prepare_v2(db,
		"EXPLAIN QUERY PLAN SELECT rowid FROM answer WHERE expires > 0 AND expires <= "
		"?1 LIMIT 9",
		-1, &s, NULL);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	assert_non_null(strstr((const char *)sqlite3_column_text(s, 3), "answer_expires"));
	sqlite3_finalize(s);
	sqlite3_close(db);
}

/* More of them than one piece of work removes. */
static void all_that_has_expired_is_removed(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *t = store_begin(st);
	int64_t left = -1, past = clock_wall_ms() - 1;
	sqlite3_stmt *s;
	sqlite3 *db;

	for (int i = 0; i < 700; i++)
		store_put(t, T_ANSWER, (const char *)&i, sizeof(i), "x", 1, past);
	assert_int_equal(store_commit_wait(t, NULL), 0);
	assert_int_equal(store_expire(st), 0);
	for (int i = 0; i < 3; i++)
		loop_once(p, st);
	store_close(st, 1000);
	assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
	sqlite3_prepare_v2(db, "SELECT count(*) FROM answer", -1, &s, NULL);
	if (sqlite3_step(s) == SQLITE_ROW)
		left = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	assert_int_equal(left, 0);
}

static void a_large_body_comes_back_whole(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	size_t n = 9 << 20;
	uint8_t *body = mem_zero(n);
	AUTOBUF back = BUF_INIT, small = BUF_MAX(1000);
	struct store_txn *t = store_begin(st);

	for (size_t i = 0; i < n; i++)
		body[i] = (uint8_t)(i * 7 >> 3);
	store_put(t, T_CODE, "big", 3, body, n, 0);
	assert_int_equal(store_commit_wait(t, NULL), 0);
	assert_int_equal(store_get(st, T_CODE, "big", 3, &back, NULL), 0);
	assert_int_equal(back.len, n);
	assert_memory_equal(back.data, body, n);
	assert_int_equal(store_get(st, T_CODE, "big", 3, &small, NULL), ERR_TOO_LARGE);
	free(body);
	store_close(st, 5000);
}

static void without_memory_a_transaction_fails_and_the_store_goes_on(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *t = store_begin(st);

	put(t, T_HOME, "a", "1");
	assert_true(fault_alloc(1));
	put(t, T_HOME, "b", "2");
	assert_true(fault_alloc(2)); /* off again */
	assert_false(fault_alloc(3));
	assert_int_equal(store_commit_wait(t, NULL), ERR_NOMEM);
	assert_record(st, T_HOME, "a", NULL);
	put_now(st, T_HOME, "a", "1", 0);
	assert_record(st, T_HOME, "a", "1");
	store_close(st, 1000);
}

/* ---- counts */

static void raised_numbers_last_and_are_never_lowered(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *t = store_begin(st);
	struct errmsg em = { "" };

	store_raise(t, 1000, 50);
	assert_int_equal(store_commit_wait(t, &em), 0);
	assert_true(store_seq(st) == 1001); /* and the transaction itself */
	t = store_begin(st);
	store_raise(t, 10, 5);
	assert_int_equal(store_commit_wait(t, &em), 0);
	assert_true(store_seq(st) == 1002);
	store_close(st, 1000);
	st = opened(p);
	assert_true(store_seq(st) == 1002 && store_boot_count(st) == 51);
	store_close(st, 1000);
}

static int file_seen(void *arg, const char *name, struct slice body)
{
	unsigned *n = arg;

	assert_string_equal(name, "note");
	assert_int_equal(body.n, 5);
	++*n;
	return 0;
}

static void a_backup_of_an_open_store_is_whole_and_takes_its_place(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *t = store_begin(st);
	struct store_file note = { "note", { (const uint8_t *)"hello", 5 } };
	struct store_backup_info info;
	struct errmsg em = { "" };
	AUTOBUF body = BUF_INIT;
	char copy[128], name[160];
	unsigned n = 0;

	snprintf(copy, sizeof(copy), "%s.copy", p->path);
	store_put(t, T_RESIDENT, "one", 3, "1", 1, 0);
	assert_int_equal(store_commit_wait(t, &em), 0);
	assert_int_equal(store_backup(p->path, copy, &note, 1, &em), 0);
	assert_int_equal(store_backup(p->path, copy, &note, 1, &em), ERR_EXISTS);
	t = store_begin(st);
	store_del(t, T_RESIDENT, "one", 3);
	assert_int_equal(store_commit_wait(t, &em), 0);
	assert_int_equal(store_backup_read(copy, &info, file_seen, &n, &em), 0);
	assert_true(n == 1 && info.residents == 1);
	assert_int_equal(store_restore(copy, p->path, &em), ERR_STATE); /* it is open */
	store_close(st, 1000);
	assert_int_equal(store_backup_read(p->path, &info, file_seen, &n, &em), ERR_STORE);
	assert_int_equal(store_restore(p->path, p->path, &em), ERR_STORE); /* no backup */
	assert_int_equal(store_restore(copy, p->path, &em), 0);
	st = opened(p);
	assert_int_equal(store_get(st, T_RESIDENT, "one", 3, &body, &em), 0);
	store_close(st, 1000);
	unlink(copy);
	snprintf(name, sizeof(name), "%s.before-restore", p->path);
	assert_int_equal(unlink(name), 0);
}

static void each_opening_raises_the_boot_count_and_keeps_the_sequence(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);

	assert_true(store_boot_count(st) == 1);
	assert_true(store_seq(st) == 0);
	put_now(st, T_HOME, "a", "1", 0);
	put_now(st, T_HOME, "b", "1", 0);
	assert_true(store_seq(st) == 2);
	store_close(st, 1000);
	st = opened(p);
	assert_true(store_boot_count(st) == 2);
	assert_true(store_seq(st) == 2);
	store_close(st, 1000);
}

static void the_queue_is_bounded(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	int rc = 0, n = 0;

	for (; n <= STORE_QUEUE_MAX && rc == 0; n++)
		rc = store_commit(store_begin(st), NULL, NULL);
	assert_int_equal(rc, ERR_FULL);
	assert_int_equal(n, STORE_QUEUE_MAX + 1);
	store_close(st, 20000);
}

static void closing_reports_what_waited(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct result r = { 0 };

	for (int i = 0; i < 20; i++) {
		struct store_txn *t = store_begin(st);

		put(t, T_HOME, "k", "v");
		assert_int_equal(store_commit(t, on_done, &r), 0);
	}
	store_close(st, 10000);
	assert_int_equal(r.n, 20);
	for (int i = 0; i < 20; i++)
		assert_int_equal(r.rc[i], 0);
}

/* ---- audit */

static void audit(struct store *st, const char *text)
{
	struct store_txn *t = store_begin(st);

	store_audit(t, text, strlen(text));
	assert_int_equal(store_commit_wait(t, NULL), 0);
}

static int audit_line(
	void *arg, uint64_t seq, int64_t time_ms, const uint8_t chain[32], struct slice body)
{
	char *out = arg;

	assert_true(time_ms > 0 && chain != NULL);
	sprintf(out + strlen(out), "%d:%.*s ", (int)seq, (int)body.n, (const char *)body.p);
	return 0;
}

static void sqlite_do(const char *path, const char *sql)
{
	sqlite3 *db;
	char *why = NULL;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s: %s", sql, why);
	sqlite3_close(db);
}

static void the_audit_chain_holds_over_openings_and_shows_tampering(void **state)
{
	static const struct {
		const char *sql;
		int bad;
	} tampers[] = { { "UPDATE audit SET body = x'00' WHERE seq = 2", 2 },
		{ "UPDATE audit SET time = time + 1 WHERE seq = 3", 3 },
		{ "DELETE FROM audit WHERE seq = 2", 2 },
		{ "UPDATE audit SET chain = zeroblob(32) WHERE seq = 1", 1 } };
	struct place *p = *state;
	struct store *st = opened(p);
	uint8_t head[2][32];
	char out[200] = "";
	uint64_t bad = 99;

	audit(st, "one");
	audit(st, "two");
	store_audit_head(st, head[0]);
	store_close(st, 1000);
	st = opened(p);
	store_audit_head(st, head[1]);
	assert_memory_equal(head[0], head[1], 32);
	audit(st, "three");
	store_audit_head(st, head[1]);
	assert_memory_not_equal(head[0], head[1], 32);
	assert_int_equal(store_audit_each(st, 0, 100, audit_line, out, NULL), 0);
	assert_string_equal(out, "1:one 2:two 3:three ");
	out[0] = 0;
	assert_int_equal(store_audit_each(st, 1, 1, audit_line, out, NULL), 0);
	assert_string_equal(out, "2:two ");
	assert_int_equal(store_audit_check(st, &bad, NULL), 0);
	assert_true(bad == 0);
	store_close(st, 1000);
	for (size_t i = 0; i < ARRAY_LEN(tampers); i++) {
		sqlite_do(p->path, "CREATE TABLE keep AS SELECT * FROM audit");
		sqlite_do(p->path, tampers[i].sql);
		st = opened(p);
		assert_int_equal(store_audit_check(st, &bad, NULL), 0);
		assert_int_equal(bad, tampers[i].bad);
		struct store_audit_walk walk = { 0 };
		int more;

		while ((more = store_audit_walk(st, &walk, 1, NULL)) > 0)
			;
		assert_int_equal(more, 0);
		assert_int_equal(walk.bad, tampers[i].bad);
		store_close(st, 1000);
		sqlite_do(p->path, "DELETE FROM audit; INSERT INTO audit SELECT * FROM keep; "
				   "DROP TABLE keep");
	}
}

static void a_failed_transaction_leaves_no_audit_record(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *t = store_begin(st);
	uint8_t head[2][32];
	uint64_t bad;

	audit(st, "one");
	store_audit_head(st, head[0]);
	store_audit(t, "never", 5);
	store_put(t, T_HOME, "", 0, "", 0, 0);
	assert_int_equal(store_commit_wait(t, NULL), ERR_TOO_LARGE);
	store_audit_head(st, head[1]);
	assert_memory_equal(head[0], head[1], 32);
	audit(st, "two");
	assert_int_equal(store_audit_check(st, &bad, NULL), 0);
	assert_true(bad == 0);
	store_close(st, 1000);
}

/* ---- trouble */

static void a_full_disk_is_said_loses_nothing_and_passes(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct result r = { 0 };
	struct store_stats stats;
	struct store_txn *t;
	struct errmsg em = { "" };
	uint8_t *big = mem_zero(1 << 20);
	uint8_t head[2][32];
	uint64_t bad;

	put_now(st, T_RESIDENT, "a", "before", 0);
	audit(st, "before");
	store_audit_head(st, head[0]);
	store_set_max_bytes(st, 512 << 10);
	t = store_begin(st);
	store_put(t, T_RESIDENT, "big", 3, big, 1 << 20, 0);
	store_audit(t, "big", 3);
	assert_int_equal(store_commit_wait(t, &em), ERR_STORE);
	assert_non_null(strstr(em.text, p->path));
	assert_non_null(strstr(em.text, "full"));
	store_stats(st, &stats);
	assert_true(stats.failed && stats.failure[0] && stats.failures == 1);
	store_audit_head(st, head[1]);
	assert_memory_equal(head[0], head[1], 32);
	/* In one group with others, only the one that needs the room fails. */
	for (int i = 0; i < 20; i++) {
		char key[8];

		t = store_begin(st);
		snprintf(key, sizeof(key), "g%d", i);
		put(t, T_RESIDENT, key, "small");
		if (i == 10)
			store_put(t, T_RESIDENT, "big", 3, big, 1 << 20, 0);
		store_audit(t, key, strlen(key));
		assert_int_equal(store_commit(t, on_done, &r), 0);
	}
	while (r.n < 20)
		loop_once(p, st);
	for (int i = 0; i < 20; i++)
		assert_int_equal(r.rc[i], i == 10 ? ERR_STORE : 0);
	assert_record(st, T_RESIDENT, "g9", "small");
	assert_record(st, T_RESIDENT, "g10", NULL);
	assert_record(st, T_RESIDENT, "g11", "small");
	assert_record(st, T_RESIDENT, "a", "before");
	assert_int_equal(store_audit_check(st, &bad, NULL), 0);
	assert_true(bad == 0);
	store_set_max_bytes(st, 0);
	t = store_begin(st);
	store_put(t, T_RESIDENT, "big", 3, big, 1 << 20, 0);
	assert_int_equal(store_commit_wait(t, &em), 0);
	store_stats(st, &stats);
	assert_false(stats.failed);
	store_close(st, 5000);
	free(big);
}

static void a_disk_without_space_is_said_and_passes(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct rlimit old, tight = { 2 << 20, RLIM_INFINITY };
	uint8_t *big = mem_zero(4 << 20);
	struct errmsg em = { "" };
	struct store_txn *t;

	put_now(st, T_RESIDENT, "a", "before", 0);
	signal(SIGXFSZ, SIG_IGN); /* a write past the limit fails, as on a full disk */
	getrlimit(RLIMIT_FSIZE, &old);
	tight.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_FSIZE, &tight);
	t = store_begin(st);
	store_put(t, T_RESIDENT, "big", 3, big, 4 << 20, 0);
	int rc = store_commit_wait(t, &em);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(rc, ERR_STORE);
	assert_non_null(strstr(em.text, "space"));
	assert_record(st, T_RESIDENT, "a", "before");
	put_now(st, T_RESIDENT, "b", "after", 0);
	store_close(st, 5000);
	st = opened(p);
	assert_record(st, T_RESIDENT, "a", "before");
	assert_record(st, T_RESIDENT, "b", "after");
	assert_record(st, T_RESIDENT, "big", NULL);
	store_close(st, 1000);
	free(big);
}

static void assert_refused(struct place *p, const char *says)
{
	struct store *st = NULL;
	struct errmsg em = { "" };

	assert_int_equal(store_open(p->path, NULL, NULL, &st, &em), ERR_STORE);
	assert_null(st);
	if (!strstr(em.text, says) || !strstr(em.text, p->path) || strchr(em.text, '\n'))
		fail_msg("not what is to be said: %s", em.text);
}

static void a_second_process_is_told_that_it_is_in_use(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);

	assert_refused(p, "in use by another process");
	store_close(st, 1000);
	st = opened(p);
	store_close(st, 1000);
}

static void overwrite(const char *path, off_t at, size_t n)
{
	AUTOCLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(pwrite(fd, "\xa5", 1, at + (off_t)i), 1);
}

static void a_damaged_file_is_named_with_the_remedy(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	uint8_t *body = mem_zero(20000);
	char key[16];

	for (int i = 0; i < 50; i++) {
		struct store_txn *t = store_begin(st);

		snprintf(key, sizeof(key), "key %d", i);
		store_put(t, T_RESIDENT, key, strlen(key), body, 300, 0);
		assert_int_equal(store_commit_wait(t, NULL), 0);
	}
	store_close(st, 1000);
	overwrite(p->path, 4096 * 3, 4096 * 6); /* in the middle */
	assert_refused(p, "carriers on it will be lost");
	overwrite(p->path, 0, 100); /* the header */
	assert_refused(p, "move the file away to start empty");
	free(body);
}

static void pass_over(struct slice key, struct slice body, void *note)
{
	(void)key;
	(void)body;
	(void)note;
}

static int count_seen(
	void *arg, struct slice key, struct slice body, int64_t expires_ms, void *note)
{
	(void)expires_ms;
	pass_over(key, body, note);
	++*(size_t *)arg;
	return 0;
}

static void nothing_is_written_to_a_store_that_is_found_damaged(void **state)
{
	size_t seen = 0;
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_txn *t = store_begin(st);
	struct errmsg em = { "" };
	uint8_t body[1000] = { 0 };
	struct result r = { 0 };
	struct stat file;
	char key[16];
	sqlite3 *db;
	sqlite3_stmt *s;

	for (int i = 0; i < 500; i++) {
		snprintf(key, sizeof(key), "key %d", i);
		store_put(t, T_RESIDENT, key, strlen(key), body, sizeof(body), 0);
	}
	assert_int_equal(store_commit_wait(t, NULL), 0);
	store_close(st, 1000);
	assert_int_equal(stat(p->path, &file), 0);
	overwrite(p->path, file.st_size - 4096 * 4, 4096 * 4);

	st = NULL;
	assert_int_equal(store_open_unchecked(p->path, on_wake, p, &st, &em), 0);
	assert_int_equal(
		store_ahead(st, T_RESIDENT, pass_over, 1, count_seen, &seen, &em), ERR_STORE);
	assert_non_null(strstr(em.text, "damaged"));
	assert_true(seen < 500);
	t = store_begin(st);
	store_put(t, T_PEER, "late", 4, "x", 1, 0);
	assert_int_equal(store_commit(t, on_done, &r), 0);
	assert_int_equal(store_checked(st, &em), ERR_STORE);
	assert_non_null(strstr(em.text, "damaged"));
	assert_int_equal(store_checked(st, &em), ERR_STORE); /* and stays so */
	store_close(st, 1000);
	assert_int_equal(r.n, 1);
	assert_int_equal(r.rc[0], ERR_CANCELLED);

	assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
	sqlite3_prepare_v2(db, "SELECT count(*) FROM peer", -1, &s, NULL);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	assert_int_equal(sqlite3_column_int(s, 0), 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
}

static void a_file_that_was_never_a_store_is_refused(void **state)
{
	struct place *p = *state;
	FILE *f = fopen(p->path, "w");

	fputs("This is a letter to my aunt, and it is longer than one hundred bytes, so that "
	      "it could "
	      "be taken for a header of something.\n",
		f);
	fclose(f);
	assert_refused(p, "restore a backup");
	unlink(p->path);
	sqlite_do(p->path, "CREATE TABLE aunt (name TEXT)");
	assert_refused(p, "another program");
}

static void a_newer_version_is_refused_with_what_to_do(void **state)
{
	struct place *p = *state;

	store_close(opened(p), 1000);
	sqlite_do(p->path, "PRAGMA user_version=99");
	assert_refused(p, "newer TOS (schema 99");
}

static void a_missing_or_forbidden_folder_is_said(void **state)
{
	struct place *p = *state, none = *p;
	pid_t pid;
	int status;

	snprintf(none.path, sizeof(none.path), "%s/none/store.db", p->dir);
	assert_refused(&none, "check that its folder exists");
	store_close(opened(p), 1000);
	chmod(p->dir, 0500);
	chmod(p->path, 0400);
	/* root may write everywhere: be nobody in particular */
	pid = fork();
	if (pid == 0) {
		struct store *st = NULL;
		struct errmsg em = { "" };
		int rc;

		if (geteuid() == 0 && (chown(p->dir, 65534, 65534) ||
					      chown(p->path, 65534, 65534) || seteuid(65534)))
			_exit(9);
		rc = store_open(p->path, NULL, NULL, &st, &em);
		_exit(rc == ERR_STORE && strstr(em.text, "writ") && strstr(em.text, p->path)
				? 0
				: 1);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- upgrades */

static void a_store_of_version_1_is_upgraded_and_keeps_its_residents(void **state)
{
	struct place *p = *state;
	struct store *st;
	sqlite3 *db;
	sqlite3_stmt *s;

	/* As version 1 wrote it: no index, and tables that came later are not there. */
	sqlite_do(p->path,
		"PRAGMA journal_mode=WAL;"
		"CREATE TABLE meta (key BLOB NOT NULL PRIMARY KEY, body BLOB NOT NULL, expires "
		"INTEGER NOT NULL DEFAULT 0) STRICT;"
		"CREATE TABLE resident (key BLOB NOT NULL PRIMARY KEY, body BLOB NOT NULL, "
		"expires INTEGER NOT NULL DEFAULT 0) STRICT;"
		"CREATE TABLE audit (seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, chain "
		"BLOB NOT NULL, body BLOB NOT NULL) STRICT;"
		"INSERT INTO resident VALUES (CAST('host0#1' AS BLOB), CAST('a carrier' AS "
		"BLOB), 0);"
		"INSERT INTO meta VALUES (CAST('store.boot' AS BLOB), x'0000000000000007', 0);"
		"PRAGMA application_id=1414484785; PRAGMA user_version=1");
	st = opened(p);
	assert_record(st, T_RESIDENT, "host0#1", "a carrier");
	assert_true(store_boot_count(st) == 8);
	put_now(st, T_DEDUP, "new", "table", 0);
	store_close(st, 1000);
	assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
	sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &s, NULL);
	sqlite3_step(s);
	assert_int_equal(sqlite3_column_int(s, 0), 4);
	sqlite3_finalize(s);
	sqlite3_prepare_v2(db,
		"SELECT count(*) FROM sqlite_schema WHERE name = 'resident_expires'", -1, &s,
		NULL);
	sqlite3_step(s);
	assert_int_equal(sqlite3_column_int(s, 0), 1);
	sqlite3_finalize(s);
	sqlite3_close(db);
}

/* ---- what nobody waits for */

static void what_nobody_waits_for_is_written_in_its_order_with_what_comes_next(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct result r = { 0 };
	struct store_stats stats;
	struct store_txn *t = store_begin(st);

	put(t, T_RESIDENT, "a", "late");
	assert_int_equal(store_commit_late(t, on_done, &r), 0);
	store_stats(st, &stats);
	assert_true(stats.queued == 0); /* nobody waits */
	assert_record(st, T_RESIDENT, "a", NULL);
	t = store_begin(st);
	put(t, T_RESIDENT, "b", "waited for");
	store_del(t, T_RESIDENT, "a", 1);
	assert_int_equal(store_commit_wait(t, NULL), 0);
	assert_record(st, T_RESIDENT, "a", NULL); /* put, then deleted */
	assert_record(st, T_RESIDENT, "b", "waited for");
	while (r.n < 1)
		loop_once(p, st);
	assert_int_equal(r.rc[0], 0);
	t = store_begin(st);
	put(t, T_RESIDENT, "c", "nudged");
	assert_int_equal(store_commit_late(t, on_done, &r), 0);
	store_nudge(st);
	store_nudge(st);
	while (r.n < 2)
		loop_once(p, st);
	assert_record(st, T_RESIDENT, "c", "nudged");
	t = store_begin(st);
	put(t, T_RESIDENT, "d", "closed over");
	assert_int_equal(store_commit_late(t, on_done, &r), 0);
	store_close(st, 20000);
	assert_int_equal(r.n, 3);
	assert_int_equal(r.rc[2], 0);
	st = opened(p);
	assert_record(st, T_RESIDENT, "d", "closed over");
	store_close(st, 1000);
}

static void only_so_many_wait_for_another(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	char key[16];

	for (int i = 0; i < STORE_LATE_MAX; i++) {
		struct store_txn *t = store_begin(st);

		snprintf(key, sizeof(key), "k%d", i);
		put(t, T_RESIDENT, key, "late");
		assert_int_equal(store_commit_late(t, NULL, NULL), 0);
	}
	loop_once(p, st);
	assert_record(st, T_RESIDENT, "k0", "late");
	store_close(st, 1000);
}

/* ---- a kill in the middle */

struct told {
	int fd;
	uint32_t number;
};

static void tell(void *arg, int rc, const struct errmsg *em)
{
	struct told *t = arg;

	(void)em;
	if (rc == 0)
		(void)!write(t->fd, &t->number, sizeof(t->number));
	free(t);
}

static void write_without_end(struct place *p, int fd)
{
	struct store *st = NULL;

	if (store_open(p->path, on_wake, p, &st, NULL) < 0)
		_exit(1);
	for (uint32_t n = 0;; n++) {
		struct store_txn *t = store_begin(st);
		struct told *told = mem_new(struct told);
		struct store_stats stats;

		*told = (struct told){ fd, n };
		/* Two records that must stay together. */
		store_put(t, T_RESIDENT, &n, sizeof(n), &n, sizeof(n), 0);
		store_put(t, T_HOME, &n, sizeof(n), &n, sizeof(n), 0);
		store_audit(t, &n, sizeof(n));
		if (store_commit(t, tell, told) < 0)
			free(told);
		do {
			store_poll(st);
			store_stats(st, &stats);
		} while (stats.queued > 64);
	}
}

static void what_was_reported_durable_survives_kill_9(void **state)
{
	struct place *p = *state;
	uint64_t total = 0;

	for (int round = 0; round < 5; round++) {
		int ends[2];
		uint32_t n, seen = 0, last = 0;
		pid_t pid;

		assert_int_equal(pipe(ends), 0);
		pid = fork();
		if (pid == 0)
			write_without_end(p, ends[1]);
		close(ends[1]);
		while (seen < 300 + (uint32_t)round * 37 &&
			read(ends[0], &n, sizeof(n)) == sizeof(n))
			seen++;
		kill(pid, SIGKILL);
		while (read(ends[0], &n, sizeof(n)) == sizeof(n)) /* what it still said */
			seen++, last = n;
		waitpid(pid, NULL, 0);
		close(ends[0]);

		struct store *st = opened(p); /* the lock went with the process */
		uint64_t bad = 99;
		AUTOBUF b = BUF_INIT;

		assert_true(seen >= 300);
		for (n = 0; n < seen || n <= last; n++) {
			assert_int_equal(store_get(st, T_RESIDENT, &n, sizeof(n), &b, NULL), 0);
			assert_int_equal(store_get(st, T_HOME, &n, sizeof(n), &b, NULL), 0);
		}
		assert_int_equal(store_audit_check(st, &bad, NULL), 0);
		assert_true(bad == 0);
		assert_true(store_seq(st) >= total + seen);
		total = store_seq(st);
		assert_true(store_boot_count(st) == 2 * (round + 1));
		store_close(st, 1000);
	}
}

static off_t log_bytes(const struct place *p)
{
	struct stat s;
	char log[128];

	snprintf(log, sizeof(log), "%s-wal", p->path);
	return stat(log, &s) == 0 ? s.st_size : -1;
}

static void write_and_wait_for_room(struct place *p, int fd)
{
	struct store *st = NULL;

	if (store_open(p->path, on_wake, p, &st, NULL) < 0)
		_exit(1);
	put_now(st, T_HOME, "a", "before", 0);
	while (log_bytes(p) < 64 * 4120) /* it comes when nothing was written for a while */
		usleep(1000);
	put_now(st, T_HOME, "b", "behind it, before zeros", 0);
	(void)!write(fd, "x", 1);
	pause();
}

static void a_young_log_gets_room_and_what_is_in_it_survives_kill_9(void **state)
{
	struct place *p = *state;
	struct pollfd done = { .events = POLLIN };
	struct store *st;
	int fds[2];
	off_t room;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0)
		write_and_wait_for_room(p, fds[1]);
	done.fd = fds[0];
	assert_int_equal(poll(&done, 1, 20000), 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(fds[0]);
	close(fds[1]);
	room = log_bytes(p);
	assert_true(room >= 64 * 4120 && room < 65 * 4120 + (64 << 10));
	st = opened(p);
	assert_record(st, T_HOME, "a", "before");
	assert_record(st, T_HOME, "b", "behind it, before zeros");
	put_now(st, T_HOME, "c", "after", 0);
	assert_record(st, T_HOME, "c", "after");
	store_close(st, 5000);
	assert_int_equal(log_bytes(p), -1); /* copied, and gone */
}

static void many_waiting_transactions_share_one_fsync(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct store_stats stats;
	struct result r = { 0 };

	for (int i = 0; i < 64; i++) {
		struct store_txn *t = store_begin(st);

		put(t, T_HOME, "k", "v");
		assert_int_equal(store_commit(t, on_done, &r), 0);
	}
	while (r.n < 64)
		loop_once(p, st);
	store_stats(st, &stats);
	assert_true(stats.commits == 64);
	assert_true(stats.groups < 64);
	assert_true(stats.queued == 0);
	store_close(st, 1000);
}

static void only_its_owner_may_read_the_file(void **state)
{
	struct place *p = *state;
	struct store *st = opened(p);
	struct stat s;
	char wal[128];

	put_now(st, T_HOME, "a", "b", 0);
	assert_int_equal(stat(p->path, &s), 0);
	assert_int_equal(s.st_mode & 0777, 0600);
	snprintf(wal, sizeof(wal), "%s-wal", p->path);
	assert_int_equal(stat(wal, &s), 0);
	assert_int_equal(s.st_mode & 0777, 0600);
	store_close(st, 1000);
}

static void a_folder_behind_a_symbolic_link_will_do(void **state)
{
	struct place *p = *state, other = *p;
	char name[80];

	snprintf(name, sizeof(name), "%s.link", p->dir);
	assert_int_equal(symlink(p->dir, name), 0);
	snprintf(other.path, sizeof(other.path), "%s/store.db", name);
	store_close(opened(&other), 1000);
	unlink(name);
}

#define T(f) cmocka_unit_test_setup_teardown(f, place_make, place_drop)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_was_reported_durable_is_read_back),
		T(a_cancelled_transaction_leaves_nothing),
		T(results_come_in_the_order_of_submission),
		T(records_come_in_key_order_until_the_callback_says_stop),
		T(records_come_in_pieces_with_what_is_written_in_between),
		T(records_read_ahead_are_the_same_each_with_what_was_seen_in_it),
		T(expired_records_are_not_found_and_then_removed),
		T(all_that_has_expired_is_removed),
		T(a_large_body_comes_back_whole),
		T(without_memory_a_transaction_fails_and_the_store_goes_on),
		T(each_opening_raises_the_boot_count_and_keeps_the_sequence),
		T(raised_numbers_last_and_are_never_lowered),
		T(a_backup_of_an_open_store_is_whole_and_takes_its_place),
		T(the_queue_is_bounded),
		T(closing_reports_what_waited),
		T(the_audit_chain_holds_over_openings_and_shows_tampering),
		T(a_failed_transaction_leaves_no_audit_record),
		T(a_full_disk_is_said_loses_nothing_and_passes),
		T(a_disk_without_space_is_said_and_passes),
		T(a_second_process_is_told_that_it_is_in_use),
		T(a_damaged_file_is_named_with_the_remedy),
		T(nothing_is_written_to_a_store_that_is_found_damaged),
		T(a_file_that_was_never_a_store_is_refused),
		T(a_newer_version_is_refused_with_what_to_do),
		T(a_missing_or_forbidden_folder_is_said),
		T(a_store_of_version_1_is_upgraded_and_keeps_its_residents),
		T(what_nobody_waits_for_is_written_in_its_order_with_what_comes_next),
		T(only_so_many_wait_for_another),
		T(what_was_reported_durable_survives_kill_9),
		T(a_young_log_gets_room_and_what_is_in_it_survives_kill_9),
		T(many_waiting_transactions_share_one_fsync),
		T(only_its_owner_may_read_the_file),
		T(a_folder_behind_a_symbolic_link_will_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
