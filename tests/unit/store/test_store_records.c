/* Claims about the store: records one after the other, in pieces, read ahead; and those that expire. */
#include "place.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_PLACE(records_come_in_key_order_until_the_callback_says_stop),
		IN_PLACE(records_come_in_pieces_with_what_is_written_in_between),
		IN_PLACE(records_read_ahead_are_the_same_each_with_what_was_seen_in_it),
		IN_PLACE(expired_records_are_not_found_and_then_removed),
		IN_PLACE(all_that_has_expired_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
