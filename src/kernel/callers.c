/*
 * Calls that our clients, carriers and extensions made to others: whom each asked, so that nobody
 * else can answer it. What the kernel itself asks is in calls.c.
 */
#include "kernel/kernel.h"

#include <string.h>

#include "base/clock.h"

#define CALLERS_MAX      50000
#define CALLER_CALLS_MAX 4096
#define LATE_MS          10000 /* an answer may come this much after its deadline */
#define SWEEP_MS         5000

/* Of one caller: tag -> struct asking. */
struct caller {
	struct map *calls;
};

struct asking {
	char carrier[NAME_BYTES_MAX + 1]; /* asked wherever it is; "" for a kernel's inbox */
	char kernel[64]; /* the kernel asked; a carrier's: where the call went last */
	int64_t asked_ms, until_ms;
};

static void caller_trim(struct caller *c, int64_t now_ms)
{
	struct asking *a;
	const void *key;
	size_t it = 0, len;

	while ((a = map_next(c->calls, &it, &key, &len)))
		if (now_ms > a->until_ms) {
			map_del(c->calls, key, len);
			free(a);
		}
}

static struct asking *asking_find(struct kernel *k, const char *caller, uint64_t tag)
{
	struct caller *c = map_find_str(k->callers, caller);

	return c ? map_find(c->calls, &tag, sizeof(tag)) : NULL;
}

int callers_note(struct kernel *k, const char *caller, const struct post *p,
	const struct address *asked, struct errmsg *em)
{
	struct caller *c = map_find_str(k->callers, caller);
	struct asking *a;

	if (c && map_size(c->calls) >= CALLER_CALLS_MAX)
		caller_trim(c, clock_ms());
	if (c ? map_size(c->calls) >= CALLER_CALLS_MAX : map_size(k->callers) >= CALLERS_MAX)
		return err_set(em, ERR_FULL, "too many calls of %s wait for an answer", caller);
	if (!c) {
		c = mem_new(struct caller);
		c->calls = map_new();
		map_put_str(k->callers, caller, c);
	}
	a = mem_new(struct asking);
	if (asked->kind == ADDRESS_CARRIER)
		snprintf(a->carrier, sizeof(a->carrier), "%s", asked->carrier);
	else
		snprintf(a->kernel, sizeof(a->kernel), "%s", asked->kernel);
	a->asked_ms = kernel_now(k);
	a->until_ms =
		a->asked_ms + (p->deadline_ms ? p->deadline_ms : k->config.call_ms) + LATE_MS;
	free(map_put(c->calls, &p->tag, sizeof(p->tag), a));
	return 0;
}

void callers_sent(struct kernel *k, const char *caller, uint64_t tag, const char *kernel)
{
	struct asking *a = asking_find(k, caller, tag);

	if (a && a->carrier[0])
		snprintf(a->kernel, sizeof(a->kernel), "%s", kernel);
}

void callers_forget(struct kernel *k, const char *caller, uint64_t tag)
{
	struct caller *c = map_find_str(k->callers, caller);

	if (c)
		free(map_del(c->calls, &tag, sizeof(tag)));
}

/* A carrier answers from wherever it is by now; the kernel that the call was delivered at says that
 * it failed. */
static bool was_asked(const struct asking *a, const struct origin *from, const struct post *p)
{
	if (!a->carrier[0])
		return strcmp(a->kernel, from->kernel) == 0;
	if (from->cls == ORIGIN_CARRIER)
		return strcmp(a->carrier, from->name) == 0;
	return p->kind == POST_FAILURE && from->cls == ORIGIN_KERNEL &&
	       strcmp(a->kernel, from->kernel) == 0;
}

bool callers_answered(
	struct kernel *k, const char *caller, const struct origin *from, const struct post *p)
{
	struct asking *a = asking_find(k, caller, p->tag);

	/* What is said here is true; a failure without a tag is about a one-way post. */
	if (from->kernel[0] && !(p->kind == POST_FAILURE && p->tag == 0) &&
		!(a && was_asked(a, from, p)))
		return false;
	callers_forget(k, caller, p->tag);
	return true;
}

static void asking_fail(
	struct kernel *k, const char *caller, uint64_t tag, int rc, const char *text)
{
	struct tos_value *elements = tos_array();

	tos_push(elements, tos_text(err_word(rc)));
	tos_push(elements, tos_text(text));
	kernel_answer(k, caller, tag, POST_FAILURE, "failure", elements);
	callers_forget(k, caller, tag);
	tos_value_free(elements);
}

void callers_lost(struct kernel *k, const char *peer, int64_t until_ms, const char *why)
{
	struct caller *c;
	const void *key, *tag;
	size_t it = 0, n, n_tag;
	char text[200];

	snprintf(text, sizeof(text), "no answer from %s: %s", peer, why);
	while ((c = map_next(k->callers, &it, &key, &n))) {
		char name[2 * NAME_BYTES_MAX];
		struct asking *a;
		size_t at = 0;

		slice_copy_text((struct slice){ key, n }, name, sizeof(name));
		while ((a = map_next(c->calls, &at, &tag, &n_tag))) {
			uint64_t number;

			if (strcmp(a->kernel, peer) != 0 || a->asked_ms > until_ms)
				continue;
			memcpy(&number, tag, sizeof(number));
			metric_add(k->metrics, "calls_lost_total", NULL, 1);
			asking_fail(k, name, number, ERR_UNKNOWN, text);
		}
	}
}

void callers_tick(struct kernel *k, int64_t now_ms)
{
	struct caller *c;
	const void *key;
	size_t it = 0, len;

	if (now_ms < k->callers_at_ms)
		return;
	k->callers_at_ms = now_ms + SWEEP_MS;
	while ((c = map_next(k->callers, &it, &key, &len))) {
		caller_trim(c, now_ms);
		if (map_size(c->calls) == 0) {
			map_del(k->callers, key, len);
			map_free(c->calls);
			free(c);
		}
	}
}
