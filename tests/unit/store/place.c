/* A store in a folder of the test's own: see place.h. */
#include "place.h"

#include <fcntl.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

int place_make(void **state)
{
	struct place *p = mem_new(struct place);

	snprintf(p->dir, sizeof(p->dir), "/tmp/test_store.XXXXXX");
	if (!mkdtemp(p->dir) || pipe2(p->wake, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	snprintf(p->path, sizeof(p->path), "%s/store.db", p->dir);
	*state = p;
	return 0;
}

int place_drop(void **state)
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

void on_wake(void *arg)
{
	struct place *p = arg;

	(void)!write(p->wake[1], "w", 1);
}

struct store *opened(struct place *p)
{
	struct store *st = NULL;
	struct errmsg em = { "" };

	if (store_open(p->path, on_wake, p, &st, &em) < 0)
		fail_msg("%s", em.text);
	return st;
}

void loop_once(struct place *p, struct store *st)
{
	struct pollfd fd = { .fd = p->wake[0], .events = POLLIN };
	char drop[64];

	assert_int_equal(poll(&fd, 1, 20000), 1);
	while (read(p->wake[0], drop, sizeof(drop)) > 0)
		;
	store_poll(st);
}

void put(struct store_txn *t, enum store_table tb, const char *key, const char *body)
{
	store_put(t, tb, key, strlen(key), body, strlen(body), 0);
}

void put_now(struct store *st, enum store_table tb, const char *key, const char *body,
	int64_t expires_ms)
{
	struct store_txn *t = store_begin(st);
	struct errmsg em = { "" };

	store_put(t, tb, key, strlen(key), body, strlen(body), expires_ms);
	if (store_commit_wait(t, &em) < 0)
		fail_msg("%s", em.text);
}

int get(struct store *st, enum store_table tb, const char *key, char *out, size_t cap)
{
	AUTOBUF b = BUF_INIT;
	int rc = store_get(st, tb, key, strlen(key), &b, NULL);

	snprintf(out, cap, "%s", buf_cstr(&b));
	return rc;
}

void assert_record(struct store *st, enum store_table tb, const char *key, const char *want)
{
	char body[256];

	assert_int_equal(get(st, tb, key, body, sizeof(body)), want ? 0 : ERR_NOT_FOUND);
	assert_string_equal(body, want ? want : "");
}

void on_done(void *arg, int rc, const struct errmsg *em)
{
	struct result *r = arg;

	assert_true((rc == 0) == (em == NULL));
	r->rc[r->n++] = rc;
}

void audit(struct store *st, const char *text)
{
	struct store_txn *t = store_begin(st);

	store_audit(t, text, strlen(text));
	assert_int_equal(store_commit_wait(t, NULL), 0);
}

void sqlite_do(const char *path, const char *sql)
{
	sqlite3 *db;
	char *why = NULL;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s: %s", sql, why);
	sqlite3_close(db);
}
