/*
 * Who watches which carrier: clients, of this kernel or of another, that its home tells what happens
 * to it. A client here is dropped with its link; one of another kernel when an event for it failed, or
 * when that kernel is given up: nobody else says that it is gone.
 */
#include "kernel/kernel.h"

#include <string.h>

#include "kernel/carrier/resident.h"
#include "kernel/handoff/report.h"
#include "kernel/carrier/family.h"
#include "kernel/home/home.h"

#define WATCHES_MAX  10000 /* carriers that are watched */
#define WATCHERS_MAX 64    /* of one carrier */

static unsigned telling; /* watchers are being walked; of this process's one kernel */

static void empty_drop(struct kernel *k, const void *key, size_t len)
{
	struct map *watchers = map_find(k->watchers, key, len);

	if (watchers && map_size(watchers) == 0 && !telling)
		map_free(map_del(k->watchers, key, len));
}

static void tell(struct kernel *k, const char *dest, const struct tos_value *event)
{
	AUTOBUF folder = BUF_MAX(FRAME_BYTES_MAX);
	const struct tos_value *parts[] = { event };
	struct origin self;
	struct errmsg em;

	origin_self(k, &self);
	folder_encode(&folder, "event", parts, 1);
	struct post p = { .kind = POST_ONEWAY,
		.dest = slice_text(dest),
		.sender = slice_text(self.name),
		.folder = slice_buf(&folder) };

	if (kernel_route(k, &self, &p, &em) < 0)
		metric_add(k->metrics, "watch_events_lost_total", NULL, 1);
}

static void watchers_tell(struct kernel *k, const char *name, const struct tos_value *event)
{
	struct map *watchers = map_find_str(k->watchers, name);
	const void *key;
	size_t it = 0, len;

	if (!watchers)
		return;
	telling++;
	while (map_next(watchers, &it, &key, &len)) {
		char dest[NAME_BYTES_MAX + 1];

		slice_copy_text((struct slice){ key, len }, dest, sizeof(dest));
		tell(k, dest, event);
	}
	telling--;
	empty_drop(k, name, strlen(name));
}

/* A clone's are of interest to whoever watches the original, too. */
void watch_event(struct kernel *k, const char *name, struct tos_value *event)
{
	char root[NAME_BYTES_MAX + 1];

	watchers_tell(k, name, event);
	if (family_suffix(name)[0] && map_size(k->watchers)) {
		family_root_name(name, root);
		watchers_tell(k, root, event);
	}
	tos_value_free(event);
}

void watch_verb(struct kernel *k, struct request *rq)
{
	const char *name = tos_get_text(rq->args, "name", "");
	struct home_record *h = home_find(k, name);
	struct resident *r = resident_find(k, name);
	struct map *watchers;
	struct tos_value *out;

	if (control_may_read(k, rq) < 0)
		return;
	if (!h) {
		request_fail(rq, ERR_NOT_FOUND, "%s is not home of %s", k->config.name, name);
		return;
	}
	watchers = map_find_str(k->watchers, name);
	if (!watchers && map_size(k->watchers) < WATCHES_MAX) {
		watchers = map_new();
		map_put_str(k->watchers, name, watchers);
	}
	if (watchers && map_size(watchers) >= WATCHERS_MAX &&
		!map_find_str(watchers, rq->from.name)) {
		/* Its state again, which harms nobody: who is gone is found out that way, and
		 * another try has room. */
		home_event(k, k->config.name, h->name, "state", shell_state_word(h->state), "");
		request_fail(rq, ERR_FULL, "%s is watched by too many", name);
		return;
	}
	if (!watchers) {
		request_fail(rq, ERR_FULL, "too many carriers are watched");
		return;
	}
	map_put_str(watchers, rq->from.name, k);
	home_wake(h); /* one that has ended is not watched for long */
	out = home_row(h);
	request_ok(rq, out);
	/* What it waits for already is news to who begins to watch. */
	if (r && r->waiting)
		home_event(k, k->config.name, h->name, "wait", NULL, r->waiting);
}

void watch_end(struct kernel *k, const char *name)
{
	map_free(map_del_str(k->watchers, name));
}

/* ---- who is gone */

static bool is_one(struct slice watcher, const char *who, bool all_below)
{
	size_t n = strlen(who);

	return watcher.n >= n && memcmp(watcher.p, who, n) == 0 &&
	       (watcher.n == n || (all_below && watcher.p[n] == '/'));
}

void watchers_drop(struct kernel *k, const char *who, bool all_below)
{
	struct map *watchers;
	const void *name, *key;
	size_t it = 0, n_name, n_key;

	while ((watchers = map_next(k->watchers, &it, &name, &n_name))) {
		size_t at = 0;

		while (map_next(watchers, &at, &key, &n_key))
			if (is_one((struct slice){ key, n_key }, who, all_below))
				map_del(watchers, key, n_key);
		empty_drop(k, name, n_name);
	}
}

void watch_failed(struct kernel *k, const char *from_kernel, const char *dest)
{
	struct address a;

	/* A kernel speaks for its own clients only. */
	if (address_parse(dest, strlen(dest), &a, NULL) == 0 && a.kind == ADDRESS_CLIENT &&
		strcmp(a.kernel, from_kernel) == 0)
		watchers_drop(k, dest, false);
}
