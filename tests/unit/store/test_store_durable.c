/* Claims about what is on the disk when: with others, later, in one go; and after a kill. What must survive a kill is
 * tried with a child that is killed. */
#include "place.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_PLACE(what_nobody_waits_for_is_written_in_its_order_with_what_comes_next),
		IN_PLACE(only_so_many_wait_for_another),
		IN_PLACE(what_was_reported_durable_survives_kill_9),
		IN_PLACE(a_young_log_gets_room_and_what_is_in_it_survives_kill_9),
		IN_PLACE(many_waiting_transactions_share_one_fsync),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
