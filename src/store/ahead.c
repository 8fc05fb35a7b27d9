/*
 * Reading a table ahead: a thread with a connection of its own copies records into batches and looks at
 * each, while the caller takes those that came before. A record that is larger than a batch is lent as it
 * lies in SQLite's memory until it has been taken.
 */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "store/db.h"
#include "store/store_impl.h"

#define BATCHES     4
#define BATCH_ROWS  64
#define BATCH_BYTES ((size_t)128 << 10)

struct row {
	struct slice key, body;
	int64_t expires_ms;
};

struct batch {
	size_t n, used;
	struct row row[BATCH_ROWS];
	uint8_t *notes;
	uint8_t bytes[BATCH_BYTES];
};

struct ahead {
	struct store *st;
	enum store_table table;
	store_look_fn *look;
	size_t note_bytes;
	pthread_t thread;
	pthread_mutex_t mutex; /* guards all up to `batch`, and hands that over */
	pthread_cond_t turned;
	size_t made, taken; /* batches: those in between are the caller's */
	bool over, stop;
	int rc;
	struct errmsg em;
	struct batch batch[BATCHES];
};

static void *note_of(const struct ahead *a, const struct batch *b, size_t i)
{
	return b->notes + i * a->note_bytes;
}

/* ---- the thread */

/* The next batch to fill, once so many at most are still to be taken; NULL: no more are wanted. */
static struct batch *batch_next(struct ahead *a, size_t most)
{
	struct batch *b;

	pthread_mutex_lock(&a->mutex);
	while (a->made - a->taken > most && !a->stop)
		pthread_cond_wait(&a->turned, &a->mutex);
	b = a->stop ? NULL : &a->batch[a->made % BATCHES];
	pthread_mutex_unlock(&a->mutex);
	if (b)
		b->n = b->used = 0;
	return b;
}

static void batch_made(struct ahead *a)
{
	pthread_mutex_lock(&a->mutex);
	a->made++;
	pthread_cond_signal(&a->turned);
	pthread_mutex_unlock(&a->mutex);
}

static bool batch_holds(const struct batch *b, size_t bytes)
{
	return b->n < BATCH_ROWS && bytes <= BATCH_BYTES - b->used;
}

static struct slice batch_copy(struct batch *b, struct slice s)
{
	struct slice copy = { b->bytes + b->used, s.n };

	if (s.n)
		memcpy(b->bytes + b->used, s.p, s.n);
	b->used += s.n;
	return copy;
}

static void batch_add(struct ahead *a, struct batch *b, struct row row)
{
	b->row[b->n] = row;
	a->look(row.key, row.body, note_of(a, b, b->n));
	b->n++;
}

static struct slice column(sqlite3_stmt *s, int i)
{
	const uint8_t *p = sqlite3_column_blob(s, i);

	return (struct slice){ p, (size_t)sqlite3_column_bytes(s, i) };
}

/* Where the next one goes; NULL as above. */
static struct batch *row_take(struct ahead *a, struct batch *b, sqlite3_stmt *s)
{
	struct row row = { column(s, 0), column(s, 1), sqlite3_column_int64(s, 2) };
	size_t bytes = row.key.n + row.body.n;
	bool lent = bytes > BATCH_BYTES;

	if (b->n > 0 && !batch_holds(b, bytes)) {
		batch_made(a);
		b = batch_next(a, BATCHES - 1);
		if (!b)
			return NULL;
	}
	if (!lent) {
		row.key = batch_copy(b, row.key);
		row.body = batch_copy(b, row.body);
	}
	batch_add(a, b, row);
	if (!lent)
		return b;
	batch_made(a);
	return batch_next(a, 0);
}

static int rows_read(struct ahead *a, sqlite3 *db, struct errmsg *em)
{
	struct batch *b = batch_next(a, BATCHES - 1);
	sqlite3_stmt *s = NULL;
	int step = SQLITE_DONE;
	int rc = db_prepare(db, &s, em, STORE_ALL_SQL, store_table_names[a->table]);

	if (rc < 0)
		return rc;
	sqlite3_bind_int64(s, 1, clock_wall_ms());
	while (b && (step = sqlite3_step(s)) == SQLITE_ROW)
		b = row_take(a, b, s);
	if (b && step != SQLITE_DONE)
		rc = db_fail(db, em);
	if (b && b->n > 0)
		batch_made(a);
	sqlite3_finalize(s);
	return rc;
}

static void *ahead_main(void *arg)
{
	struct ahead *a = arg;
	struct errmsg em = { "" };
	sqlite3 *db = NULL;
	int rc = db_open_reader(a->st->path, &db, &em);

	if (rc == 0)
		rc = rows_read(a, db, &em);
	sqlite3_close(db);
	pthread_mutex_lock(&a->mutex);
	a->rc = rc;
	a->em = em;
	a->over = true;
	pthread_cond_signal(&a->turned);
	pthread_mutex_unlock(&a->mutex);
	return NULL;
}

/* ---- the caller */

static int batch_give(
	const struct ahead *a, const struct batch *b, store_seen_fn *fn, void *arg)
{
	int rc = 0;

	for (size_t i = 0; i < b->n && rc == 0; i++)
		rc = fn(arg, b->row[i].key, b->row[i].body, b->row[i].expires_ms,
			note_of(a, b, i));
	return rc;
}

static int batches_take(struct ahead *a, store_seen_fn *fn, void *arg)
{
	bool some = true;
	int rc = 0;

	while (some && rc == 0) {
		pthread_mutex_lock(&a->mutex);
		while (a->made == a->taken && !a->over)
			pthread_cond_wait(&a->turned, &a->mutex);
		some = a->made != a->taken;
		pthread_mutex_unlock(&a->mutex);
		if (!some)
			break;
		rc = batch_give(a, &a->batch[a->taken % BATCHES], fn, arg);
		pthread_mutex_lock(&a->mutex);
		a->taken++;
		a->stop = rc != 0;
		pthread_cond_signal(&a->turned);
		pthread_mutex_unlock(&a->mutex);
	}
	return rc;
}

int store_ahead(struct store *st, enum store_table tb, store_look_fn *look, size_t note_bytes,
	store_seen_fn *fn, void *arg, struct errmsg *em)
{
	struct ahead *a = mem_raw(sizeof(*a));
	uint8_t *notes = mem_raw(BATCHES * BATCH_ROWS * note_bytes);
	int rc;

	memset(a, 0, offsetof(struct ahead, batch));
	a->st = st;
	a->table = tb;
	a->look = look;
	a->note_bytes = note_bytes;
	for (size_t i = 0; i < BATCHES; i++)
		a->batch[i].notes = notes + i * BATCH_ROWS * note_bytes;
	pthread_mutex_init(&a->mutex, NULL);
	pthread_cond_init(&a->turned, NULL);
	if (pthread_create(&a->thread, NULL, ahead_main, a) != 0) {
		rc = err_set(em, ERR_STORE,
			"store %s: the thread that reads it can't be started", st->path);
	} else {
		rc = batches_take(a, fn, arg);
		pthread_join(a->thread, NULL);
		if (rc == 0 && a->rc < 0)
			rc = err_set(em, a->rc, "store %s: %s", st->path, a->em.text);
	}
	pthread_cond_destroy(&a->turned);
	pthread_mutex_destroy(&a->mutex);
	free(notes);
	free(a);
	return rc;
}
