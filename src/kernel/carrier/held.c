/*
 * Posts held for a carrier that is here and can't take them yet: it departs, has just arrived, or
 * has not opened that inbox. Bounded by its limits `inbox` (folders) and `state` (bytes).
 */
#include "kernel/carrier/resident.h"

#include <string.h>

#include "base/clock.h"
#include "kernel/posts.h"

size_t kept_post_cost(const struct post *p)
{
	return p->dest.n + p->folder.n;
}

struct kept_post *kept_post_new(
	struct kernel *k, const struct origin *from, const struct post *p)
{
	size_t n = p->dest.n + p->folder.n;
	struct kept_post *kp = mem_try(sizeof(*kp) + n + 1);

	if (!kp)
		return NULL;
	list_init(&kp->node);
	list_init(&kp->item.node);
	kp->item.seq = 0;
	kp->stream = NULL;
	kp->travels = false;
	kp->from = *from;
	kp->post = *p;
	kp->deadline_at_ms =
		kernel_now(k) + (p->deadline_ms ? p->deadline_ms : k->config.call_ms);
	memcpy(kp->bytes, p->dest.p, p->dest.n);
	kp->post.dest.p = kp->bytes;
	if (p->folder.n)
		memcpy(kp->bytes + p->dest.n, p->folder.p, p->folder.n);
	kp->post.folder.p = kp->bytes + p->dest.n;
	kp->post.sender = slice_text(kp->from.name);
	kp->post.trace = (struct slice){ NULL, 0 };
	kp->n_bytes = kept_post_cost(p);
	return kp;
}

static void held_drop(struct resident *r, struct kept_post *kp)
{
	list_del(&kp->node);
	r->n_held--;
	r->held_bytes -= kp->n_bytes;
	free(kp);
}

int router_hold(struct resident *r, const struct origin *from, const struct post *p, bool came)
{
	size_t cost = kept_post_cost(p);
	struct kept_post *kp;

	if (!came && r->n_held && r->held_bytes + cost > (size_t)r->usage.limit[LIMIT_state])
		return ERR_FULL;
	kp = kept_post_new(r->k, from, p);
	if (!kp)
		return ERR_NOMEM;
	list_add(&r->held, &kp->node);
	r->n_held++;
	r->held_bytes += cost;
	return 0;
}

/* One-way posts that wait for an inbox go along with the carrier: they may be of senders that this
 * kernel can't speak for. Calls are left to be sent after it. */
void router_held_collect(struct resident *r,
	void (*fn)(struct resident *r, const struct origin *from, const struct post *p))
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &r->held)
	{
		struct kept_post *kp = LIST_ITEM(pos, struct kept_post, node);

		kp->travels = kp->post.kind == POST_ONEWAY;
		if (kp->travels)
			fn(r, &kp->from, &kp->post);
	}
}

/* The departure came about, to here (`gone`: they are in what arrived), or not at all. */
void router_held_uncollect(struct resident *r, bool gone)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &r->held)
	{
		struct kept_post *kp = LIST_ITEM(pos, struct kept_post, node);

		if (kp->travels && gone)
			held_drop(r, kp);
		else
			kp->travels = false;
	}
}

/* The same carrier is back: what its former copy holds waits for the new one, behind what that
 * one holds. */
void router_held_move(struct resident *from, struct resident *to)
{
	router_held_uncollect(from, true);
	to->n_held += from->n_held;
	to->held_bytes += from->held_bytes;
	list_take(&from->held, &to->held);
	from->n_held = from->held_bytes = 0;
}

/* Give each held post to fn, which returns true to have it taken out of the queue. */
void router_held_each(struct resident *r,
	bool (*fn)(struct resident *r, const struct origin *from, const struct post *p))
{
	struct list *pos, *tmp;
	int64_t now = kernel_now(r->k);

	LIST_EACH_SAFE(pos, tmp, &r->held)
	{
		struct kept_post *kp = LIST_ITEM(pos, struct kept_post, node);
		bool late = now >= kp->deadline_at_ms;

		if (late)
			kernel_fail_back(r->k, &kp->post, ERR_EXPIRED,
				"the carrier did not take it in time");
		if (late || fn(r, &kp->from, &kp->post))
			held_drop(r, kp);
	}
}

void router_forward_held(struct kernel *k, struct resident *r, const char *kernel)
{
	place_note(k, r->name, kernel);
	while (!list_empty(&r->held)) {
		struct kept_post *kp = LIST_ITEM(r->held.next, struct kept_post, node);
		struct errmsg em = { "" };
		int rc = kp->travels ? 0
				     : stream_add(k, &kp->from, &kp->post, r->name,
					       kp->deadline_at_ms, &em);

		if (rc < 0)
			kernel_fail_back(k, &kp->post, rc, err_show(rc, &em));
		held_drop(r, kp);
	}
}
