/*
 * When a home record is written: at once, with the next tick, or a little later for what the
 * places would say again. And while a raise of the incarnation is being journaled, nothing.
 */
#include "kernel/home/records.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "kernel/handoff/moves.h"
#include "kernel/home/home.h"

#define SAVE_SOON_MS 200

bool home_busy(const struct home_record *h)
{
	return h->raising || h->closing;
}

struct home_saving {
	struct kernel *k;
	char name[NAME_BYTES_MAX + 1];
};

static void home_saved(void *arg, int rc, const struct errmsg *em)
{
	AUTOFREE struct home_saving *s = arg;
	struct home_record *h = rc < 0 ? map_find_str(s->k->homes, s->name) : NULL;

	(void)em;
	if (h)
		home_save_due(h); /* memory is ahead of the store: the tick tries again */
}

void home_save(struct kernel *k, struct home_record *h)
{
	struct home_saving *s;
	struct store_txn *t;

	home_save_due(h);
	h->place_due = false;
	if (home_busy(h))
		return; /* once that has come out */
	s = mem_new(struct home_saving);
	s->k = k;
	snprintf(s->name, sizeof(s->name), "%s", h->name);
	t = store_begin(k->store);
	home_put(t, h);
	FAULT_AT(HOME_COMMIT);
	if (store_commit(t, home_saved, s) < 0)
		free(s);
	else
		h->save_due = false;
}

void home_save_due(struct home_record *h)
{
	h->save_due = true;
	home_wake(h);
}

/* Where a carrier is now: the tick writes it, once for all that came meanwhile. Who forgets it in a
 * crash hears of it again, from the place or from the one before. */
void home_save_soon(struct home_record *h)
{
	if (!h->place_due)
		h->place_at_ms = clock_ms() + SAVE_SOON_MS;
	h->place_due = true;
	home_wake(h);
}

/* A higher incarnation counts when it is durable: until then reports are answered with the
 * present one, and if the journal fails nothing has happened. */
void home_raise(struct home_record *h)
{
	h->raising = true;
	h->next_e.count = h->e.count + 1;
	random_bytes(h->next_e.nonce, sizeof(h->next_e.nonce));
}

void home_raised(struct kernel *k, struct home_record *h, int rc)
{
	if (!h->raising)
		return;
	h->raising = false;
	if (rc == 0) {
		h->e = h->next_e;
		incarnation_learn(k, h->id, &h->e, h->expires_ms);
	}
}
