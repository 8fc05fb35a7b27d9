/* Claims about the store: what is written is read back, its counts, its queue, backups. */
#include "place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_PLACE(what_was_reported_durable_is_read_back),
		IN_PLACE(a_cancelled_transaction_leaves_nothing),
		IN_PLACE(results_come_in_the_order_of_submission),
		IN_PLACE(a_large_body_comes_back_whole),
		IN_PLACE(without_memory_a_transaction_fails_and_the_store_goes_on),
		IN_PLACE(each_opening_raises_the_boot_count_and_keeps_the_sequence),
		IN_PLACE(raised_numbers_last_and_are_never_lowered),
		IN_PLACE(a_backup_of_an_open_store_is_whole_and_takes_its_place),
		IN_PLACE(the_queue_is_bounded),
		IN_PLACE(closing_reports_what_waited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
