/*
 * A disk that does not confirm what it was given: fdatasync() fails, of the log or of the file. The functions of
 * SQLite are the real ones; fdatasync() of this program is in the place of the system's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "store/store.h"

#define BODY   (200 << 10)
#define ROUNDS 40 /* more than the log holds before it is copied */

static const char *volatile fails; /* the end of the file's name; NULL: none does */

__attribute__((visibility("default"))) int fdatasync(int fd)
{
	char link[40], path[256] = "";
	const char *end = fails;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = end ? readlink(link, path, sizeof(path) - 1) : -1;
	if (n >= (ssize_t)(end ? strlen(end) : 0) && strcmp(path + n - strlen(end), end) == 0) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* What the process that ends was told; shared with it. */
struct told {
	int good, bad;
};

static void no_wake(void *arg)
{
	(void)arg;
}

static void put(struct store *st, struct told *told, int number, size_t bytes)
{
	AUTOFREE uint8_t *body = mem_zero(bytes);
	struct store_txn *t = store_begin(st);
	char key[16];

	snprintf(key, sizeof(key), "k%d", number);
	store_put(t, T_HOME, key, strlen(key), body, bytes, 0);
	if (store_commit_wait(t, NULL) == 0)
		told->good++;
	else
		told->bad++;
}

/* Its process: one row, then the disk is out of order. */
static void write_until_it_ends(const char *path, struct told *told, const char *file)
{
	struct store *st;

	must(store_open(path, no_wake, NULL, &st, NULL) == 0);
	put(st, told, 0, 100);
	fails = file;
	for (int i = 1; i <= ROUNDS; i++)
		put(st, told, i, BODY);
	_exit(0);
}

static bool found(struct store *st, int number)
{
	AUTOBUF b = BUF_INIT;
	char key[16];

	snprintf(key, sizeof(key), "k%d", number);
	return store_get(st, T_HOME, key, strlen(key), &b, NULL) == 0;
}

static void remove_all(const char *path)
{
	static const char *const ends[] = { "", "-wal", "-shm" };
	char name[128];

	for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		unlink(name);
	}
}

/* How many rows the process was told to be durable; all of them and no others may be found but the one
 * on its way, of which nobody was told anything. */
static int rows_before_it_ended(const char *file, bool *one_more)
{
	struct told *told = mmap(
		NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char dir[] = "/tmp/test_unconfirmed.XXXXXX", path[64];
	struct store *st;
	int status, good;
	pid_t pid;

	assert_true(told != MAP_FAILED);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/store.db", dir);
	pid = fork();
	if (pid == 0)
		write_until_it_ends(path, told, file);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_int_equal(told->bad, 0);
	good = told->good;
	assert_int_equal(store_open(path, no_wake, NULL, &st, NULL), 0);
	for (int i = 0; i < good; i++)
		assert_true(found(st, i));
	*one_more = found(st, good);
	assert_false(found(st, good + 1));
	store_close(st, 5000);
	remove_all(path);
	rmdir(dir);
	munmap(told, sizeof(*told));
	return good;
}

static void nobody_is_told_that_a_commit_failed_which_the_log_may_hold(void **state)
{
	bool one_more;

	(void)state;
	assert_int_equal(rows_before_it_ended("-wal", &one_more), 1);
	assert_true(one_more); /* "it failed" would have been a lie */
}

static void the_log_is_not_begun_anew_over_what_the_file_may_lack(void **state)
{
	bool one_more;
	int good = rows_before_it_ended("/store.db", &one_more);

	(void)state;
	assert_in_range(good, 2, ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_is_told_that_a_commit_failed_which_the_log_may_hold),
		cmocka_unit_test(the_log_is_not_begun_anew_over_what_the_file_may_lack),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
