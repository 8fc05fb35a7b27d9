/*
 * The store on a disk that is full in truth, a small file system of the test's own: what each caller is told is
 * what is found after a kill -9.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "store/store.h"

#define TXNS    60 /* of a group */
#define GROUPS  6
#define BODY    (40 << 10)
#define SKIPPED 77

/* What each caller was told; shared with the process that dies. */
struct told {
	int n, rc[GROUPS * TXNS];
};

static int wake[2];

static void on_wake(void *arg)
{
	(void)arg;
	(void)!write(wake[1], "w", 1);
}

static void loop_until(struct store *st, const struct told *told, int n)
{
	struct pollfd fd = { .fd = wake[0], .events = POLLIN };
	char drop[64];

	while (told->n < n) {
		must(poll(&fd, 1, 20000) == 1);
		while (read(wake[0], drop, sizeof(drop)) > 0)
			;
		store_poll(st);
	}
}

struct caller {
	struct told *told;
	int number;
};

static void on_done(void *arg, int rc, const struct errmsg *em)
{
	struct caller *c = arg;

	(void)em;
	c->told->rc[c->number] = rc;
	c->told->n++;
	free(c);
}

/* Three rows in three tables, of a size of its own, and one of audit: all of them or none. */
static const enum store_table tables[] = { T_RESIDENT, T_HOME, T_ANSWER };

static void submit(struct store *st, struct told *told, int number, const uint8_t *bytes)
{
	struct store_txn *t = store_begin(st);
	struct caller *c = mem_new(struct caller);
	char key[16];
	size_t n = number % 7 == 3 ? BODY : (size_t)(number * 37 % 500);

	*c = (struct caller){ told, number };
	snprintf(key, sizeof(key), "k%d", number);
	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		store_put(t, tables[i], key, strlen(key), bytes, n, 0);
	store_audit(t, key, strlen(key));
	must(store_commit(t, on_done, c) == 0);
}

static void fill_and_die(const char *path, struct told *told)
{
	uint8_t *bytes = mem_zero(BODY);
	struct store *st;

	must(pipe2(wake, O_CLOEXEC | O_NONBLOCK) == 0);
	must(store_open(path, on_wake, NULL, &st, NULL) == 0);
	for (int g = 0; g < GROUPS; g++) {
		for (int i = 0; i < TXNS; i++)
			submit(st, told, g * TXNS + i, bytes);
		loop_until(st, told, (g + 1) * TXNS);
	}
	kill(getpid(), SIGKILL);
}

static int rows_of(struct store *st, int number)
{
	char key[16];
	int n = 0;

	snprintf(key, sizeof(key), "k%d", number);
	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		AUTOBUF b = BUF_INIT;

		n += store_get(st, tables[i], key, strlen(key), &b, NULL) == 0;
	}
	return n;
}

static void found_as_told(const char *path, const struct told *told)
{
	struct errmsg em = { "" };
	struct store *st;
	uint64_t bad;
	int good = 0, full = 0;

	must(pipe2(wake, O_CLOEXEC | O_NONBLOCK) == 0);
	if (store_open(path, on_wake, NULL, &st, &em) < 0) {
		fprintf(stderr, "%s\n", em.text);
		_exit(1);
	}
	must(told->n == GROUPS * TXNS);
	for (int i = 0; i < told->n; i++) {
		must(told->rc[i] == 0 || told->rc[i] == ERR_STORE);
		must(rows_of(st, i) == (told->rc[i] == 0 ? (int)ARRAY_LEN(tables) : 0));
		good += told->rc[i] == 0;
		full += told->rc[i] < 0;
	}
	fprintf(stderr, "%d of %d found room\n", good, told->n);
	/* Small ones found room behind large ones that did not. */
	must(good > TXNS && full > TXNS / 7);
	must(store_audit_check(st, &bad, NULL) == 0 && bad == 0);
	store_close(st, 5000);
}

/* In namespaces of its own. */
static int on_small_disk(const char *dir, struct told *told)
{
	char path[96];
	int status;
	pid_t pid;

	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return SKIPPED;
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	if (mount("none", dir, "tmpfs", 0, "size=3m") < 0)
		return SKIPPED;
	snprintf(path, sizeof(path), "%s/store.db", dir);
	pid = fork();
	if (pid == 0)
		fill_and_die(path, told);
	waitpid(pid, &status, 0);
	must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	must(mount("none", dir, "tmpfs", MS_REMOUNT, "size=64m") == 0);
	found_as_told(path, told);
	return 0;
}

static void on_a_full_disk_each_is_told_what_became_of_it(void **state)
{
	struct told *told = mmap(
		NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char dir[] = "/tmp/test_full.XXXXXX";
	int status;
	pid_t pid;

	(void)state;
	assert_true(told != MAP_FAILED);
	assert_non_null(mkdtemp(dir));
	pid = fork();
	if (pid == 0)
		_exit(on_small_disk(dir, told));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	rmdir(dir);
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		skip();
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	munmap(told, sizeof(*told));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_a_full_disk_each_is_told_what_became_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
