/*
 * Carriers that this home launched after the backup from which its store was put back: no record here
 * knows of them. They name this kernel as their home in a ticket that their owner signed, and their
 * chain begins with a hop record that this kernel signed; when one comes, on its way or to end, its
 * record is made anew of these.
 */
#include "kernel/handoff/evidence.h"

#include <string.h>

#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "kernel/handoff/restored.h"
#include "kernel/home/home.h"
#include "wire/record.h"

/* Launched here, before the store was put back. */
static bool launched_here(struct kernel *k, const struct resident *r)
{
	struct hop first = { .parts = NULL };
	struct slice bytes = records_at(&r->hops, 0);
	bool yes;

	yes = record_hop(bytes, &first, NULL) == 0 && strcmp(first.from, k->config.name) == 0 &&
	      first.time_ms < k->restored_ms + k->config.skew_ms;
	hop_fini(&first);
	return yes;
}

struct home_record *home_adopt(
	struct kernel *k, const struct resident *r, const struct hop *last)
{
	struct home_record *h;
	struct tos_value *m;

	if (!k->restored_ms || r->suffix[0] || !records_n(&r->hops) ||
		strcmp(r->ticket.home, k->config.name) != 0 || !launched_here(k, r))
		return NULL;
	h = home_new(k, r->name);
	memcpy(h->id, r->id, DIGEST_BYTES);
	snprintf(h->owner, sizeof(h->owner), "%s", r->owner->name);
	blob_share(&h->ticket_cose, &r->ticket_cose);
	h->state = SHELL_RUNNING;
	h->e = last->e;
	h->n = last->n;
	h->launched_ms = r->launched_ms;
	h->expires_ms = r->ticket.expires_ms;
	home_place(h, last->from, 0);
	home_add(k, h);
	m = tos_map();
	tos_set(m, "carrier", tos_text(h->name));
	tos_set(m, "from", tos_text(last->from));
	audit_event(k, NULL, "home-learnt-again", m);
	log_notice("a carrier that this store had forgotten is known again by its chain",
		KV_STR("carrier", h->name), KV_STR("from", last->from));
	return h;
}
