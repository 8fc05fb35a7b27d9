/*
 * The check of the whole file at each start: beside the reading of it, by a thread and a connection of
 * its own. Until it has come out well nothing that was committed is written, and nobody is served
 * from what was read (store_checked()).
 */
#include "base/mem.h"
#include "store/db.h"
#include "store/store_impl.h"

static void *check_main(void *arg)
{
	struct store *st = arg;
	struct errmsg em = { "" };
	sqlite3 *db = NULL;
	int rc = db_open_reader(st->path, &db, &em);

	if (rc == 0)
		rc = db_check(db, &em);
	sqlite3_close(db);
	pthread_mutex_lock(&st->mutex);
	st->check.rc = rc;
	st->check.em = em;
	st->check.runs = false;
	pthread_cond_broadcast(&st->work);
	pthread_mutex_unlock(&st->mutex);
	return NULL;
}

int check_begin(struct store *st, struct errmsg *em)
{
	st->check.runs = st->check.due = true;
	if (pthread_create(&st->check.thread, NULL, check_main, st) == 0)
		return 0;
	st->check.runs = st->check.due = false;
	return err_set(em, ERR_STORE, "the thread that checks it can't be started");
}

void check_end(struct store *st)
{
	if (st->check.due)
		pthread_join(st->check.thread, NULL);
	st->check.due = false;
}

int store_checked(struct store *st, struct errmsg *em)
{
	check_end(st);
	if (st->check.rc < 0)
		return err_set(em, st->check.rc, "store %s: %s", st->path, st->check.em.text);
	return 0;
}
