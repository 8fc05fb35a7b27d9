/*
 * The store, seen from the loop thread: opening, building transactions, results, closing.
 * Reading is in read.c, writing in writer.c, the file and its schema in db.c.
 */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "store/db.h"
#include "store/store_impl.h"

/* ---- opening */

/* A lock of the kernel's: it goes with the process, however that ends. */
static int lock_take(const char *path, int *out, struct errmsg *em)
{
	char name[4096];
	int fd;

	if (snprintf(name, sizeof(name), "%s.lock", path) >= (int)sizeof(name))
		return err_set(em, ERR_STORE, "its name is too long");
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(em, ERR_STORE,
			"its lock can't be made (%s): check that its folder exists and is "
			"writable",
			strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		*out = fd;
		return 0;
	}
	close(fd);
	if (errno != EWOULDBLOCK)
		return err_set(em, ERR_STORE, "it can't be locked (%s)", strerror(errno));
	return err_set(em, ERR_STORE, "it is in use by another process: end that first");
}

static int store_setup(struct store *st, struct errmsg *em)
{
	int rc = lock_take(st->path, &st->lock_fd, em);

	if (rc == 0)
		rc = writer_open(&st->w, st->path, em);
	if (rc == 0)
		rc = mark_load(&st->w, em);
	if (rc == 0)
		rc = boot_raise(&st->w, &st->boot_count, em);
	if (rc == 0)
		rc = db_open_reader(st->path, &st->r, em);
	for (int i = 0; i < STORE_TABLE_COUNT && rc == 0; i++)
		rc = db_prepare(st->r, &st->get[i], em,
			"SELECT body FROM \"%s\" WHERE key = ?1 AND (expires = 0 OR expires > "
			"?2)",
			store_table_names[i]);
	st->mark = st->w.mark;
	return rc;
}

static void threads_init(struct store *st)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&st->mutex, NULL);
	pthread_cond_init(&st->work, &attr);
	pthread_cond_init(&st->finished, &attr);
	pthread_condattr_destroy(&attr);
}

static void store_free(struct store *st)
{
	sqlite3_stmt *s;
	struct store_txn *t;

	while (st->r && (s = sqlite3_next_stmt(st->r, NULL)))
		sqlite3_finalize(s);
	sqlite3_close(st->r);
	writer_close(&st->w); /* the last one: the log is written back into the file */
	while ((t = txn_pop(&st->queue)))
		txn_free(t);
	while ((t = txn_pop(&st->done)))
		txn_free(t);
	mem_close(st->lock_fd);
	pthread_cond_destroy(&st->work);
	pthread_cond_destroy(&st->finished);
	pthread_mutex_destroy(&st->mutex);
	free(st->path);
	free(st);
}

int store_open(const char *path, void (*wake)(void *arg), void *arg, struct store **out,
	struct errmsg *em)
{
	struct store *st = NULL;
	int rc = store_open_unchecked(path, wake, arg, &st, em);

	if (rc == 0)
		rc = store_checked(st, em);
	if (rc < 0)
		store_close(st, 0);
	else
		*out = st;
	return rc;
}

int store_open_unchecked(const char *path, void (*wake)(void *arg), void *arg,
	struct store **out, struct errmsg *em)
{
	struct store *st = mem_new(struct store);
	int rc;

	st->path = mem_strdup(path);
	st->lock_fd = -1;
	st->wake = wake;
	st->wake_arg = arg;
	threads_init(st);
	rc = store_setup(st, em);
	if (rc == 0)
		rc = check_begin(st, em);
	if (rc == 0 && pthread_create(&st->thread, NULL, writer_main, st) != 0)
		rc = err_set(em, ERR_STORE, "its writer thread can't be started");
	if (rc < 0) {
		check_end(st);
		store_free(st);
		return err_wrap(em, rc, "store %s", path);
	}
	*out = st;
	return 0;
}

static struct timespec time_after(uint32_t ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	return t;
}

void store_close(struct store *st, uint32_t limit_ms)
{
	struct timespec until = time_after(limit_ms);

	if (!st)
		return;
	check_end(st);
	pthread_mutex_lock(&st->mutex);
	st->stopping = true;
	pthread_cond_signal(&st->work);
	while (!st->ended && !st->abandoned)
		if (pthread_cond_timedwait(&st->finished, &st->mutex, &until) == ETIMEDOUT)
			st->abandoned = true;
	pthread_mutex_unlock(&st->mutex);
	pthread_join(st->thread, NULL);
	store_poll(st);
	store_free(st);
}

/* ---- transactions */

void txn_push(struct txn_list *l, struct store_txn *t)
{
	t->next = NULL;
	if (l->last)
		l->last->next = t;
	else
		l->first = t;
	l->last = t;
	l->n++;
}

struct store_txn *txn_pop(struct txn_list *l)
{
	struct store_txn *t = l->first;

	if (!t)
		return NULL;
	l->first = t->next;
	if (!l->first)
		l->last = NULL;
	l->n--;
	return t;
}

void txn_free(struct store_txn *t)
{
	struct op *next;

	if (!t)
		return;
	for (struct op *op = t->first; op; op = next) {
		next = op->next;
		free(op);
	}
	free(t);
}

struct store_txn *store_begin(struct store *st)
{
	struct store_txn *t = mem_new(struct store_txn);

	t->st = st;
	return t;
}

void store_cancel(struct store_txn *t)
{
	txn_free(t);
}

/* A failure is kept in t and reported with its result, so that building needs no checks. */
static void op_add(struct store_txn *t, enum op_kind kind, enum store_table tb,
	struct slice key, struct slice body, int64_t time_ms)
{
	struct op *op;

	if (t->rc < 0)
		return;
	if (key.n > STORE_KEY_MAX || body.n > STORE_BODY_MAX ||
		((kind == OP_PUT || kind == OP_DEL) && key.n == 0)) {
		t->rc = err_set(&t->em, ERR_TOO_LARGE,
			"a record for the store has a key of %zu and "
			"a body of %zu bytes",
			key.n, body.n);
		return;
	}
	op = mem_try_raw(sizeof(*op) + key.n + body.n);
	if (!op) {
		t->rc = err_set(&t->em, ERR_NOMEM, "no memory for a record of the store");
		return;
	}
	*op = (struct op){
		.kind = kind, .table = tb, .time_ms = time_ms, .n_key = key.n, .n_body = body.n
	};
	if (key.n)
		memcpy(op->data, key.p, key.n);
	if (body.n)
		memcpy(op->data + key.n, body.p, body.n);
	if (t->last)
		t->last->next = op;
	else
		t->first = op;
	t->last = op;
	t->bytes += sizeof(*op) + key.n + body.n;
}

void store_put(struct store_txn *t, enum store_table tb, const void *key, size_t n_key,
	const void *body, size_t n_body, int64_t expires_ms)
{
	op_add(t, OP_PUT, tb, (struct slice){ key, n_key }, (struct slice){ body, n_body },
		expires_ms);
}

void store_del(struct store_txn *t, enum store_table tb, const void *key, size_t n_key)
{
	op_add(t, OP_DEL, tb, (struct slice){ key, n_key }, (struct slice){ NULL, 0 }, 0);
}

void store_audit(struct store_txn *t, const void *body, size_t n_body)
{
	op_add(t, OP_AUDIT, T_META, (struct slice){ NULL, 0 }, (struct slice){ body, n_body },
		clock_wall_ms());
}

void store_raise(struct store_txn *t, uint64_t seq, uint64_t boot_count)
{
	uint64_t numbers[2] = { seq, boot_count };

	op_add(t, OP_RAISE, T_META, (struct slice){ NULL, 0 },
		(struct slice){ (const uint8_t *)numbers, sizeof(numbers) }, 0);
}

/* With the mutex held. */
static int submit(struct store *st, struct store_txn *t)
{
	if (st->stopping || st->n_waiting >= STORE_QUEUE_MAX ||
		(st->n_waiting > 0 && t->bytes > STORE_BYTES_MAX - st->bytes_waiting))
		return ERR_FULL;
	st->n_waiting++;
	st->bytes_waiting += t->bytes;
	st->n_late += t->late;
	txn_push(&st->queue, t);
	if (t->late && st->n_late < STORE_LATE_MAX)
		return 0;
	st->due = true;
	return 0;
}

/* With the mutex held: it is reported. */
void txn_reported(struct store *st, const struct store_txn *t)
{
	st->n_waiting--;
	st->bytes_waiting -= t->bytes;
	st->n_late -= t->late;
}

int store_commit(struct store_txn *t, store_done_fn *done, void *arg)
{
	struct store *st = t->st;
	int rc;

	t->done = done;
	t->arg = arg;
	bool due;

	pthread_mutex_lock(&st->mutex);
	rc = submit(st, t);
	due = st->due;
	pthread_mutex_unlock(&st->mutex);
	/* Not before: woken on this very core, the writer would wait for the mutex. */
	if (rc == 0 && due)
		pthread_cond_signal(&st->work);
	if (rc < 0)
		txn_free(t);
	return rc;
}

int store_commit_late(struct store_txn *t, store_done_fn *done, void *arg)
{
	t->late = true;
	return store_commit(t, done, arg);
}

void store_nudge(struct store *st)
{
	bool due;

	pthread_mutex_lock(&st->mutex);
	due = st->due = st->queue.first != NULL;
	pthread_mutex_unlock(&st->mutex);
	if (due)
		pthread_cond_signal(&st->work);
}

int store_commit_wait(struct store_txn *t, struct errmsg *em)
{
	struct store *st = t->st;
	int rc;

	t->waited = true;
	pthread_mutex_lock(&st->mutex);
	rc = submit(st, t);
	pthread_cond_signal(&st->work);
	while (rc == 0 && !t->finished)
		pthread_cond_wait(&st->finished, &st->mutex);
	pthread_mutex_unlock(&st->mutex);
	if (rc == 0 && t->rc < 0)
		rc = err_set(em, t->rc, "store %s: %s", st->path, t->em.text);
	else if (rc < 0)
		err_set(em, rc, "store %s: too much waits to be written", st->path);
	txn_free(t);
	return rc;
}

void store_poll(struct store *st)
{
	struct txn_list done;
	struct store_txn *t;

	pthread_mutex_lock(&st->mutex);
	done = st->done;
	st->done = (struct txn_list){ NULL, NULL, 0 };
	for (t = done.first; t; t = t->next)
		txn_reported(st, t);
	pthread_mutex_unlock(&st->mutex);
	while ((t = txn_pop(&done))) {
		if (t->rc < 0)
			err_wrap(&t->em, t->rc, "store %s", st->path);
		if (t->done)
			t->done(t->arg, t->rc, t->rc < 0 ? &t->em : NULL);
		txn_free(t);
	}
}

static void expired(void *arg, int rc, const struct errmsg *em)
{
	struct store *st = arg;

	(void)em; /* a failure is counted with the others; tried again the next time */
	st->expiring = false;
	if (rc == 0 && st->w.more_expired)
		store_expire(st);
}

int store_expire(struct store *st)
{
	struct store_txn *t;
	int rc;

	if (st->expiring)
		return 0;
	t = store_begin(st);
	op_add(t, OP_EXPIRE, T_META, (struct slice){ NULL, 0 }, (struct slice){ NULL, 0 },
		clock_wall_ms());
	rc = store_commit(t, expired, st);
	st->expiring = rc == 0;
	return rc;
}

/* ---- what is known without asking the file */

uint64_t store_seq(struct store *st)
{
	uint64_t seq;

	pthread_mutex_lock(&st->mutex);
	seq = st->mark.seq;
	pthread_mutex_unlock(&st->mutex);
	return seq;
}

int64_t store_boot_count(struct store *st)
{
	return st->boot_count;
}

void store_audit_head(struct store *st, uint8_t out[32])
{
	pthread_mutex_lock(&st->mutex);
	memcpy(out, st->mark.audit_head, 32);
	pthread_mutex_unlock(&st->mutex);
}

uint64_t store_audit_last(struct store *st, uint8_t chain[32])
{
	uint64_t seq;

	pthread_mutex_lock(&st->mutex);
	memcpy(chain, st->mark.audit_head, 32);
	seq = st->mark.audit_seq;
	pthread_mutex_unlock(&st->mutex);
	return seq;
}

void store_set_max_bytes(struct store *st, uint64_t bytes)
{
	pthread_mutex_lock(&st->mutex);
	st->max_bytes = bytes;
	pthread_mutex_unlock(&st->mutex);
}

void store_stats(struct store *st, struct store_stats *out)
{
	pthread_mutex_lock(&st->mutex);
	*out = st->stats;
	out->queued = st->n_waiting - st->n_late;
	pthread_mutex_unlock(&st->mutex);
}
