/* Claims about a store that cannot be opened, is damaged, of another version, or has no room; and about its file. */
#include "place.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_PLACE(a_full_disk_is_said_loses_nothing_and_passes),
		IN_PLACE(a_disk_without_space_is_said_and_passes),
		IN_PLACE(a_second_process_is_told_that_it_is_in_use),
		IN_PLACE(a_damaged_file_is_named_with_the_remedy),
		IN_PLACE(nothing_is_written_to_a_store_that_is_found_damaged),
		IN_PLACE(a_file_that_was_never_a_store_is_refused),
		IN_PLACE(a_newer_version_is_refused_with_what_to_do),
		IN_PLACE(a_missing_or_forbidden_folder_is_said),
		IN_PLACE(a_store_of_version_1_is_upgraded_and_keeps_its_residents),
		IN_PLACE(only_its_owner_may_read_the_file),
		IN_PLACE(a_folder_behind_a_symbolic_link_will_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
