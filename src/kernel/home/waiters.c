/*
 * Who waits at the home for a carrier's outcome, and how many of them one client may have.
 */
#include "kernel/home/waiters.h"

#include <string.h>

#include "base/clock.h"
#include "kernel/home/home.h"

struct outcome_waiter {
	struct list node;
	struct request *rq;
	int64_t until_ms;
};

/* How many outcomes one client may wait for at a time. */
#define WAITERS_MAX 4096

static size_t *waiting_of(struct kernel *k, const char *client)
{
	size_t *n = map_find_str(k->waiting, client);

	if (!n) {
		n = mem_new(size_t);
		map_put_str(k->waiting, client, n);
	}
	return n;
}

/* Takes it off the list; the request is its caller's to answer. */
static struct request *waiter_end(struct outcome_waiter *w)
{
	struct request *rq = w->rq;
	size_t *n = waiting_of(rq->k, rq->from.name);

	if (*n <= 1)
		free(map_del_str(rq->k->waiting, rq->from.name));
	else
		--*n;
	list_del(&w->node);
	free(w);
	return rq;
}

void waiters_fail(struct home_record *h, int rc, const char *text)
{
	while (!list_empty(&h->waiters)) {
		struct outcome_waiter *w =
			LIST_ITEM(h->waiters.next, struct outcome_waiter, node);

		request_fail(waiter_end(w), rc, "%s", text);
	}
}

static struct tos_value *outcome_answer(const struct home_record *h)
{
	struct tos_value *m = h->outcome ? tos_value_copy(h->outcome) : tos_map();

	tos_set(m, "name", tos_text(h->name));
	tos_set(m, "state", tos_text(shell_state_word(h->state)));
	if (!tos_get(m, "briefcase"))
		tos_set(m, "briefcase", tos_map());
	if (!tos_get(m, "trail"))
		tos_set(m, "trail", tos_array());
	if (h->fault)
		tos_set(m, "fault", tos_value_copy(h->fault));
	else if (!tos_get(m, "fault"))
		tos_set(m, "fault", tos_nil());
	return m;
}

void waiters_tell(struct home_record *h)
{
	h->k->family_news |= home_outcome_known(h);
	while (home_outcome_known(h) && !list_empty(&h->waiters)) {
		struct outcome_waiter *w =
			LIST_ITEM(h->waiters.next, struct outcome_waiter, node);

		request_ok(waiter_end(w), outcome_answer(h));
	}
}

void home_wait(struct home_record *h, struct request *rq, uint32_t wait_ms)
{
	struct outcome_waiter *w;

	if (home_outcome_known(h)) {
		request_ok(rq, outcome_answer(h));
		return;
	}
	if (wait_ms == 0) {
		request_fail(rq, ERR_TIMEOUT, "%s is %s at %s", h->name,
			shell_state_word(h->state), h->kernel);
		return;
	}
	if (*waiting_of(rq->k, rq->from.name) >= WAITERS_MAX) {
		request_fail(rq, ERR_FULL, "%s waits for %d outcomes already", rq->from.name,
			WAITERS_MAX);
		return;
	}
	++*waiting_of(rq->k, rq->from.name);
	w = mem_new(struct outcome_waiter);
	w->rq = rq;
	w->until_ms = clock_ms() + wait_ms;
	list_add(&h->waiters, &w->node);
}

void home_waiters_drop(struct kernel *k, const char *client)
{
	struct home_record *h;
	size_t it = 0;

	if (!map_find_str(k->waiting, client))
		return;
	while ((h = map_next(k->homes, &it, NULL, NULL))) {
		struct list *pos, *tmp;

		LIST_EACH_SAFE(pos, tmp, &h->waiters)
		{
			struct outcome_waiter *w = LIST_ITEM(pos, struct outcome_waiter, node);

			if (strcmp(w->rq->from.name, client) == 0)
				request_free(waiter_end(w));
		}
	}
}

void waiters_tick(struct home_record *h, int64_t now_ms)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &h->waiters)
	{
		struct outcome_waiter *w = LIST_ITEM(pos, struct outcome_waiter, node);

		if (now_ms < w->until_ms)
			continue;
		request_fail(waiter_end(w), ERR_TIMEOUT, "%s is still %s at %s", h->name,
			shell_state_word(h->state), h->kernel);
	}
}
