/*
 * Posts to carriers that are elsewhere: where each carrier was seen last, and a stream for each pair
 * of sender and carrier, which keeps the order while the carrier moves (doc/protocol.md, "Posts to
 * carriers"; doc/decisions/streams.md).
 *
 * Many posts of a stream may be on their way to one kernel. One that is refused because the carrier
 * is not there, and those behind it, come back and are sent to where it is. To a kernel that speaks
 * version 1 of the protocol one goes at a time, as a call DELIVER.
 */
#include "kernel/posts.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/carrier/resident.h"
#include "tos/extension.h"

#define STREAMS_MAX    50000
#define PLACES_MAX     100000
#define PLACE_MS       600000
#define MOVED_PAUSE_MS 20
#define MOVED_MOST     4 /* one neighbour's word after another's, before the Messenger is asked */
#define DELIVER_MS     10000
#define IDLE_MS        2000 /* an empty stream is kept for the next post */
#define FLYING_MAX     256  /* on their way to one kernel: doc/protocol.md allows 1,024 */
#define FLYING_BYTES   ((size_t)2 << 20)

struct place {
	char kernel[64];
	int64_t at_ms;
};

/* Posts of one sender to one carrier that is elsewhere. */
struct stream_queue {
	char key[2 * NAME_BYTES_MAX + 4];
	char dest[NAME_BYTES_MAX + 1]; /* the carrier, without the inbox */
	struct list again; /* came back: before all of `posts`, once nothing is on its way */
	struct list posts; /* to be sent */
	size_t n, bytes;   /* all of it */
	size_t n_flying;   /* on their way, in the order of the peer's courier */
	char to[64];       /* where those on their way go, or whose link is waited for */
	bool waits;        /* for that link, or for room on it */
	bool busy;         /* a LOCATE, or a DELIVER to an old kernel, is under way */
	bool located;      /* the present try is by the Messenger's word, not by our memory */
	unsigned moved;    /* so often were we sent on since we asked, or delivered */
	int64_t again_at_ms, idle_at_ms;
};

static void stream_next(struct kernel *k, struct stream_queue *q);

/* ---- places */

void place_note(struct kernel *k, const char *carrier, const char *kernel)
{
	struct place *pl = map_find_str(k->places, carrier);

	if (!pl) {
		if (!name_kernel_ok(kernel) || map_size(k->places) >= PLACES_MAX)
			return;
		pl = mem_new(struct place);
		map_put_str(k->places, carrier, pl);
	}
	if (strcmp(pl->kernel, kernel) != 0) {
		if (!name_kernel_ok(kernel))
			return;
		snprintf(pl->kernel, sizeof(pl->kernel), "%s", kernel);
	}
	pl->at_ms = kernel_now(k);
}

void place_forget(struct kernel *k, const char *carrier)
{
	free(map_del_str(k->places, carrier));
}

const char *place_find(const struct kernel *k, const char *carrier)
{
	const struct place *pl = map_find_str(k->places, carrier);

	return pl ? pl->kernel : NULL;
}

/* ---- the queue */

static struct kept_post *first(struct list *l)
{
	return list_empty(l) ? NULL : LIST_ITEM(l->next, struct kept_post, node);
}

/* It has been dealt with, or has failed. */
static void post_drop(struct kernel *k, struct stream_queue *q, struct kept_post *kp)
{
	list_del(&kp->node);
	q->n--;
	q->bytes -= kp->n_bytes;
	k->streams_bytes -= kp->n_bytes;
	free(kp);
}

static void post_fail(struct kernel *k, struct stream_queue *q, struct kept_post *kp, int rc,
	const char *text)
{
	kernel_fail_back(k, &kp->post, rc, text);
	post_drop(k, q, kp);
}

static int64_t left_ms(const struct kernel *k, const struct kept_post *kp, int64_t most)
{
	int64_t left = kp->deadline_at_ms - kernel_now(k);

	return left < 1 ? 1 : left < most ? left : most;
}

static size_t stream_key(char *key, const char *sender, const char *carrier)
{
	size_t a = strlen(sender), b = strlen(carrier);

	memcpy(key, sender, a);
	key[a] = '|';
	memcpy(key + a + 1, carrier, b);
	key[a + 1 + b] = 0;
	return a + 1 + b;
}

static struct stream_queue *stream_find(
	const struct kernel *k, const char *sender, const char *carrier)
{
	char key[2 * NAME_BYTES_MAX + 4];

	return map_find(k->streams, key, stream_key(key, sender, carrier));
}

static struct stream_queue *stream_new(
	struct kernel *k, const char *sender, const char *carrier)
{
	struct stream_queue *q = mem_new(struct stream_queue);
	size_t n = stream_key(q->key, sender, carrier);

	snprintf(q->dest, sizeof(q->dest), "%s", carrier);
	list_init(&q->again);
	list_init(&q->posts);
	map_put(k->streams, q->key, n, q);
	return q;
}

bool stream_waits(const struct kernel *k, const char *sender, const char *carrier)
{
	const struct stream_queue *q = stream_find(k, sender, carrier);

	return q && q->n > 0;
}

static int stream_room(const struct kernel *k, const struct stream_queue *q, size_t cost,
	const char *carrier, struct errmsg *em)
{
	if (!q && map_size(k->streams) >= STREAMS_MAX)
		return err_set(em, ERR_FULL, "too many carriers are being looked for");
	if (q && q->n >= k->config.stream_posts)
		return err_set(em, ERR_FULL, "%zu posts wait for %s", q->n, carrier);
	if (q && q->n && q->bytes + cost > k->config.stream_bytes)
		return err_set(em, ERR_FULL, "%zu bytes wait for %s", q->bytes, carrier);
	if (k->streams_bytes + cost > k->config.streams_bytes)
		return err_set(em, ERR_FULL, "too much waits for carriers elsewhere");
	return 0;
}

int stream_add(struct kernel *k, const struct origin *from, const struct post *p,
	const char *carrier, int64_t deadline_at_ms, struct errmsg *em)
{
	struct stream_queue *q = stream_find(k, from->name, carrier);
	size_t cost = kept_post_cost(p);
	struct kept_post *kp;
	int rc = stream_room(k, q, cost, carrier, em);

	if (rc < 0)
		return rc;
	kp = kept_post_new(k, from, p);
	if (!kp)
		return ERR_NOMEM;
	if (deadline_at_ms)
		kp->deadline_at_ms = deadline_at_ms;
	if (!q)
		q = stream_new(k, from->name, carrier);
	kp->stream = q;
	list_add(&q->posts, &kp->node);
	q->n++;
	q->bytes += cost;
	k->streams_bytes += cost;
	stream_next(k, q);
	return 0;
}

/* ---- what became of a try */

/* A neighbour says where it went. What neighbours remember can lead in a circle: then its home is asked, and
 * there is a pause. */
static void sent_on(struct kernel *k, struct stream_queue *q, const char *kernel)
{
	const char *place = place_find(k, q->dest);
	bool news = !place || strcmp(place, kernel) != 0;

	place_note(k, q->dest, kernel);
	q->moved += news; /* once for all that were on their way */
	/* Where it is not taken yet, or its neighbours disagree: after a pause. */
	if (strcmp(kernel, q->to) == 0 || q->located || q->moved > MOVED_MOST)
		q->again_at_ms = kernel_now(k) + MOVED_PAUSE_MS;
	if (q->moved > MOVED_MOST && ext_hook(k->exts, TOS_INBOX_LOCATES, 0)) {
		q->moved = 0;
		place_forget(k, q->dest);
	}
}

/* This post was not delivered, for the carrier is not there: true if it is tried again. */
static bool try_again(struct kernel *k, struct stream_queue *q, struct kept_post *kp, int rc,
	const char *text)
{
	if (kernel_now(k) >= kp->deadline_at_ms)
		return false;
	if (rc == ERR_MOVED) {
		sent_on(k, q, text);
		return true;
	}
	if (rc == ERR_NOT_FOUND && !q->located) {
		place_forget(k, q->dest); /* our memory was stale: ask the Messenger */
		return true;
	}
	return false;
}

static const char *of_call(const struct kept_post *kp)
{
	return origin_vouched(&kp->from);
}

/* ---- to a kernel of version 1: one at a time */

/* The key travels through callbacks, never the pointer: the queue may be gone by then. */
static void on_delivered(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE char *key = arg;
	struct stream_queue *q = map_find_str(k->streams, key);
	struct kept_post *kp = q ? first(&q->posts) : NULL;

	(void)elements;
	if (!kp)
		return;
	q->busy = false;
	if (rc == 0) {
		*k->count.posts_forwarded += 1;
		q->located = false;
		q->moved = 0;
		post_drop(k, q, kp);
	} else if (!try_again(k, q, kp, rc, text)) {
		q->located = false;
		/* Nobody said what became of it. */
		post_fail(k, q, kp, rc == ERR_TIMEOUT ? ERR_UNKNOWN : rc, text);
	}
	stream_next(k, q);
}

static struct tos_value *deliver_args(
	const struct origin *from, const struct post *p, int64_t left)
{
	struct tos_value *args = tos_map();

	tos_set(args, "kind", tos_int(p->kind));
	tos_set(args, "dest", tos_text_n((const char *)p->dest.p, p->dest.n));
	tos_set(args, "sender", tos_text(from->name));
	tos_set(args, "tag", tos_int((int64_t)p->tag));
	tos_set(args, "deadline_ms", tos_int(left));
	tos_set(args, "folder", tos_bytes(p->folder.p, p->folder.n));
	return args;
}

static void send_by_call(struct kernel *k, struct stream_queue *q, struct kept_post *kp)
{
	int64_t left = left_ms(k, kp, INT64_MAX);
	struct tos_value *elements = tos_array();

	tos_push(elements, deliver_args(&kp->from, &kp->post, left));
	q->busy = true;
	call_start(k, q->to, "Kernel", "DELIVER", elements,
		(uint32_t)(left < DELIVER_MS ? left : DELIVER_MS), of_call(kp), on_delivered,
		mem_strdup(q->key));
}

/* ---- to a kernel of version 2: numbered */

static bool peer_carries(const struct peer *p)
{
	return p->link && link_version(p->link) >= 2;
}

static int carry_frame_send(struct kernel *k, struct peer *p, const struct kept_post *kp)
{
	int64_t left = left_ms(k, kp, UINT32_MAX);
	struct carry y = { .seq = kp->item.seq, .seen = p->out.seen, .post = kp->post };

	y.post.deadline_ms = (uint32_t)left;
	return peer_carry(k, p, &y, of_call(kp));
}

/* False: there is no room on the link now. */
static bool send_numbered(struct kernel *k, struct stream_queue *q, struct peer *p)
{
	struct kept_post *kp = first(&q->posts);
	int rc;

	if (p->out.n && (p->out.n >= FLYING_MAX || p->out.bytes + kp->n_bytes > FLYING_BYTES))
		return false;
	courier_out_add(&p->out, &kp->item, kp->n_bytes);
	rc = carry_frame_send(k, p, kp);
	if (rc < 0) {
		p->out.next--; /* it was not sent */
		courier_out_land(&p->out, &kp->item);
		if (rc == ERR_FULL || rc == ERR_CLOSED)
			return false;
		post_fail(k, q, kp, rc, err_text(rc));
		return true;
	}
	list_del(&kp->node);
	q->n_flying++;
	return true;
}

static void wait_for_link(struct kernel *k, struct stream_queue *q, struct peer *p)
{
	if (!q->waits)
		p->n_streams++;
	q->waits = true;
	if (!p->link)
		peer_reach(k, p);
}

static void waits_no_more(struct kernel *k, struct stream_queue *q)
{
	struct peer *p = q->waits ? map_find_str(k->peers, q->to) : NULL;

	q->waits = false;
	if (p)
		p->n_streams--;
}

/* To the kernel q->to; false: the rest waits. */
static bool stream_send(struct kernel *k, struct stream_queue *q, const char *kernel)
{
	struct kept_post *kp = first(&q->posts);
	struct peer *p = peer_get(k, kernel);

	if (!p) {
		post_fail(k, q, kp, ERR_UNREACHABLE, "that is no kernel's name");
		return true;
	}
	if (strcmp(q->to, kernel) != 0) {
		if (q->n_flying)
			return false; /* it is somewhere else by now: let them come back first */
		snprintf(q->to, sizeof(q->to), "%s", kernel);
	}
	if (!p->link) {
		wait_for_link(k, q, p);
		return false;
	}
	if (kp->post.kind == POST_CALL)
		callers_sent(k, kp->from.name, kp->post.tag, kernel);
	if (!peer_carries(p)) {
		send_by_call(k, q, kp);
		return false;
	}
	if (send_numbered(k, q, p))
		return true;
	wait_for_link(k, q, p);
	return false;
}

/* ---- where is it? */

static void on_located(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE char *key = arg;
	struct stream_queue *q = map_find_str(k->streams, key);
	struct kept_post *kp = q ? first(&q->posts) : NULL;
	const char *kernel = tos_get_text(tos_at(elements, 0), "kernel", "");

	if (!q)
		return;
	q->busy = false;
	if (!kp ||
		(rc == 0 && strcmp(kernel, k->config.name) == 0 && resident_find(k, q->dest))) {
		stream_next(k, q); /* delivers it here */
		return;
	}
	if (rc == 0 && kernel[0] && strcmp(kernel, k->config.name) != 0) {
		place_note(k, q->dest, kernel);
		q->located = true;
	} else {
		if (rc == 0) {
			rc = ERR_NOT_FOUND;
			text = "the carrier is not here";
		}
		post_fail(k, q, kp, rc, text);
	}
	stream_next(k, q);
}

static void stream_locate(struct kernel *k, struct stream_queue *q)
{
	const char *inbox = ext_hook(k->exts, TOS_INBOX_LOCATES, 0);
	struct kept_post *kp = first(&q->posts);
	struct tos_value *args;
	struct address a;

	if (!inbox) {
		post_fail(k, q, kp, ERR_UNSUPPORTED,
			"no extension of this kernel locates carriers (Messenger is not loaded)");
		return;
	}
	args = tos_map();
	tos_set(args, "dest", tos_text(q->dest));
	if (address_parse(q->dest, strlen(q->dest), &a, NULL) == 0)
		tos_set(args, "home", tos_text(a.kernel));
	q->busy = true;
	kernel_call(k, "", inbox, "LOCATE", args, (uint32_t)left_ms(k, kp, UINT32_MAX),
		on_located, mem_strdup(q->key));
}

/* ---- the next step of a stream */

/* It came here meanwhile. */
static void stream_deliver(struct kernel *k, struct stream_queue *q, struct resident *r)
{
	struct kept_post *kp = first(&q->posts);
	struct slice dest = kp->post.dest;
	const uint8_t *slash = memchr(dest.p, '/', dest.n);
	struct errmsg em = { "" };
	char inbox[64] = "";
	int rc;

	if (slash)
		slice_copy_text(
			(struct slice){ slash + 1, dest.n - (size_t)(slash + 1 - dest.p) },
			inbox, sizeof(inbox));
	rc = resident_post(r, &kp->from, &kp->post, inbox, &em);
	if (rc < 0)
		kernel_fail_back(k, &kp->post, rc, err_show(rc, &em));
	post_drop(k, q, kp);
}

/* What came back goes in front. */
static void take_again(struct stream_queue *q)
{
	struct list rest;

	list_init(&rest);
	list_take(&q->posts, &rest);
	list_take(&q->again, &q->posts);
	list_take(&rest, &q->posts);
}

/* One step; false when it has to wait for something. */
static bool stream_step(struct kernel *k, struct stream_queue *q)
{
	struct kept_post *kp;
	struct resident *r;
	const char *place;

	if (q->busy || (q->n_flying && !list_empty(&q->again)))
		return false;
	if (!list_empty(&q->again))
		take_again(q);
	kp = first(&q->posts);
	if (!kp)
		return false;
	if (kernel_now(k) >= kp->deadline_at_ms) {
		post_fail(k, q, kp, ERR_EXPIRED, "the carrier was not found in time");
		return true;
	}
	if (q->again_at_ms && kernel_now(k) < q->again_at_ms)
		return false; /* the tick comes back */
	q->again_at_ms = 0;
	r = resident_find(k, q->dest);
	if (r && !shell_ended(r->state)) {
		if (q->n_flying)
			return false;
		stream_deliver(k, q, r);
		return true;
	}
	place = place_find(k, q->dest);
	if (place && strcmp(place, k->config.name) != 0)
		return stream_send(k, q, place);
	if (!q->n_flying)
		stream_locate(k, q);
	return !q->n_flying && !q->busy;
}

static void stream_next(struct kernel *k, struct stream_queue *q)
{
	waits_no_more(k, q);
	while (stream_step(k, q))
		;
	if (q->n == 0)
		q->idle_at_ms = kernel_now(k);
}

/* ---- what the peer says */

struct landing {
	struct kernel *k;
	struct peer *peer;
};

/* A numbered post is not on its way any more. */
static void on_landed(void *arg, struct courier_item *it, int rc, const char *text)
{
	struct kernel *k = ((struct landing *)arg)->k;
	struct kept_post *kp = CONTAINER_OF(it, struct kept_post, item);
	struct stream_queue *q = kp->stream;

	q->n_flying--;
	if (rc == 0) {
		*k->count.posts_forwarded += 1;
		q->located = false;
		q->moved = 0;
		post_drop(k, q, kp);
	} else if (try_again(k, q, kp, rc, text)) {
		list_add(&q->again, &kp->node);
	} else {
		q->located = false;
		post_fail(k, q, kp, rc, text);
	}
	stream_next(k, q);
}

/* Those that wait for this peer's link, or for room on it. */
static void streams_wake(struct kernel *k, struct peer *p)
{
	struct stream_queue *q;
	size_t it = 0;

	if (p->n_streams == 0)
		return;
	while ((q = map_next(k->streams, &it, NULL, NULL)))
		if (q->waits && strcmp(q->to, p->name) == 0)
			stream_next(k, q);
}

int streams_taken(struct kernel *k, struct peer *p, struct cbor_cursor *c, struct errmsg *em)
{
	struct landing l = { k, p };
	int rc = courier_out_taken(&p->out, c, on_landed, &l, em);

	if (rc == 0 && p->link)
		streams_wake(k, p);
	return rc;
}

/* ---- links */

/* Is it behind one that came back? Then it was not delivered, whatever else became of it. */
static bool comes_back(struct peer *p, struct courier_item *it)
{
	struct kept_post *kp = CONTAINER_OF(it, struct kept_post, item);
	struct stream_queue *q = kp->stream;

	if (list_empty(&q->again))
		return false;
	courier_out_land(&p->out, it);
	q->n_flying--;
	list_add(&q->again, &kp->node);
	return true;
}

/* Nobody will say what became of those on their way. */
void streams_lost(struct kernel *k, struct peer *p, const char *why)
{
	struct landing l = { k, p };

	while (!list_empty(&p->out.flying)) {
		struct courier_item *it =
			LIST_ITEM(p->out.flying.next, struct courier_item, node);

		if (comes_back(p, it))
			continue;
		courier_out_land(&p->out, it);
		on_landed(&l, it, ERR_UNKNOWN, why);
	}
}

/* The same posts with the same numbers: what the peer took already it takes no second time. Those
 * behind one that came back must not be delivered before it. */
static void send_flying(struct kernel *k, struct peer *p)
{
	struct list *pos, *tmp;

	LIST_EACH_SAFE(pos, tmp, &p->out.flying)
	{
		struct courier_item *it = LIST_ITEM(pos, struct courier_item, node);
		struct kept_post *kp = CONTAINER_OF(it, struct kept_post, item);

		if (comes_back(p, it) || carry_frame_send(k, p, kp) == 0)
			continue;
		courier_out_land(&p->out, it);
		kp->stream->n_flying--;
		post_fail(k, kp->stream, kp, ERR_UNKNOWN, "the link was lost");
	}
}

void streams_link_up(struct kernel *k, struct peer *p, bool same_boot)
{
	if (!same_boot || !peer_carries(p))
		streams_lost(k, p, "the kernel that it was sent to has started anew");
	else
		send_flying(k, p);
	streams_wake(k, p);
}

/* What never left may be sought elsewhere once, if only our memory said that it is there. */
void streams_unreachable(struct kernel *k, struct peer *p, const char *why)
{
	struct stream_queue *q;
	size_t it = 0;

	while (p->n_streams && (q = map_next(k->streams, &it, NULL, NULL))) {
		struct kept_post *kp;

		if (!q->waits || strcmp(q->to, p->name) != 0)
			continue;
		waits_no_more(k, q);
		if (q->n_flying)
			continue; /* it ends when those are given up */
		if (!q->located) {
			place_forget(k, q->dest);
		} else {
			q->located = false;
			while ((kp = first(&q->posts)))
				post_fail(k, q, kp, ERR_UNREACHABLE, why);
		}
		stream_next(k, q);
	}
}

/* ---- the rest */

/* An answer goes to where the caller asked from, and nobody says that it came: calls end when their
 * caller leaves, so it is not sought elsewhere. It stays behind posts that are on their way. */
bool answer_sent(
	struct kernel *k, const struct origin *from, const struct post *p, const char *carrier)
{
	const char *place = place_find(k, carrier);
	uint32_t left = p->deadline_ms ? p->deadline_ms : k->config.call_ms;
	const char *vouch_for = from->cls == ORIGIN_CARRIER ? from->name : NULL;
	struct peer *peer;

	if (p->tag == 0 || !place || strcmp(place, k->config.name) == 0 ||
		stream_waits(k, from->name, carrier))
		return false;
	*k->count.posts_forwarded += 1;
	peer = map_find_str(k->peers, place);
	if (peer && peer_carries(peer)) {
		struct carry y = { .seq = 0, .seen = peer->out.seen, .post = *p };

		y.post.deadline_ms = left;
		y.post.trace = (struct slice){ NULL, 0 };
		if (peer_carry(k, peer, &y, vouch_for) == 0)
			return true;
	}
	kernel_notify_for(
		k, place, "Kernel", "DELIVER", deliver_args(from, p, left), left, vouch_for);
	return true;
}

static bool stream_idle(const struct stream_queue *q, int64_t now_ms)
{
	return q->n == 0 && !q->busy && now_ms - q->idle_at_ms >= IDLE_MS;
}

void streams_tick(struct kernel *k, int64_t now_ms)
{
	struct stream_queue *q;
	struct place *pl;
	const void *key;
	size_t it = 0, len;

	while ((q = map_next(k->streams, &it, &key, &len))) {
		if (stream_idle(q, now_ms)) {
			waits_no_more(k, q);
			map_del(k->streams, key, len);
			free(q);
		} else if (q->n > q->n_flying) {
			stream_next(k, q);
		}
	}
	it = 0;
	while ((pl = map_next(k->places, &it, &key, &len)))
		if (now_ms - pl->at_ms > PLACE_MS) {
			map_del(k->places, key, len);
			free(pl);
		}
}

void streams_init(struct kernel *k)
{
	k->places = map_new();
	k->streams = map_new();
}
