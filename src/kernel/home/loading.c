/*
 * Home records after a start. The kernel serves at once and reads them behind that, some in each turn of
 * its loop: who asks for one by its name is given it from the store meanwhile (home_find()), and what
 * goes through all of them has the rest read first (homes_all()).
 */
#include "base/clock.h"
#include "base/log.h"
#include "kernel/home/home.h"
#include "kernel/home/records.h"
#include "kernel/home/waiters.h"

#define TURN_RECORDS 100 /* half a millisecond */
#define AGAIN_MS     1000

static int row_load(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct kernel *k = arg;
	struct home_record *h = NULL;
	char name[NAME_BYTES_MAX + 1];

	(void)expires_ms;
	slice_copy_text(key, name, sizeof(name));
	if (map_find_str(k->homes, name))
		return 0; /* that is newer, or this very row */
	if (home_read(k, body, &h) < 0) {
		log_error("a home record could not be read; it is kept in the store",
			KV_STR("carrier", name), KV_INT("bytes", body.n));
		return 0;
	}
	if (shell_ended(h->state) && clock_wall_ms() - h->ended_ms > IN_MEMORY_MS)
		home_free(h);
	else
		home_add(k, h);
	return 0;
}

/* Nothing is left out: what the store could not give is asked for again. */
static void some(struct kernel *k, size_t most)
{
	struct errmsg em = { "" };
	int rc = store_some(k->store, T_HOME, &k->homes_at, most, row_load, k, &em);

	k->homes_due = rc != 0;
	if (rc < 0) {
		k->homes_again_ms = clock_ms() + AGAIN_MS;
		log_error("home records could not be read", KV_ERR(rc, &em));
	}
}

static void turn(struct kernel *k, void *arg)
{
	(void)arg;
	if (!k->homes_due || k->homes_again_ms)
		return; /* the tick goes on with it */
	some(k, TURN_RECORDS);
	kernel_later(k, turn, NULL);
}

void homes_all(struct kernel *k)
{
	if (k->homes_due && clock_ms() >= k->homes_again_ms)
		some(k, SIZE_MAX);
}

struct home_record *home_known(struct kernel *k, const char *name)
{
	return k->homes_due ? home_find(k, name) : map_find_str(k->homes, name);
}

/* NULL: the record is not in memory. */
static const struct blob *ticket_kept(const struct kernel *k, const char *carrier)
{
	const struct home_record *h = map_find_str(k->homes, carrier);

	return h ? &h->ticket_cose : NULL;
}

void homes_begin(struct kernel *k)
{
	k->homes = map_new();
	k->ticket_kept = ticket_kept;
	k->count_stored = homes_all;
	list_init(&k->homes_open);
	list_init(&k->homes_over);
	k->notes = map_new();
	list_init(&k->families);
	k->waiting = map_new();
	k->homes_due = true;
	kernel_later(k, turn, NULL);
}
