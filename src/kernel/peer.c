/*
 * Peers: which kernels we talk to, how they are found, what waits for a link to them, and for
 * which carriers they vouch.
 */
#include "kernel/trust/introduce.h"
#include "kernel/carrier/family.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernel/carrier/admit.h"
#include "kernel/carrier/resident.h"
#include "kernel/trust/trust.h"
#include "seal/records.h"

#define PEERS_MAX          20000
#define PEER_QUEUE_BYTES   ((size_t)16 << 20)
#define PEER_VOUCHES_MAX   100000
#define VOUCH_HOPS_MAX     64
#define LOOKUP_MS          5000
#define DIRECTORY_FRESH_MS 60000
/* nobody asked just now, but the link is wanted: it is dialled again after this, then twice it ... */
#define AGAIN_MS      100
#define AGAIN_MOST_MS 5000
#define STEADY_MS     1000 /* a link that held so long is dialled anew at once */
#define TAKEN_EVERY   64   /* posts of a peer that are answered before a tick */

struct waiting_post {
	struct list node;
	int64_t deadline_at_ms;
	uint64_t call;
	char vouch_for[NAME_BYTES_MAX + 1];
	size_t n;
	uint8_t frame[];
};

struct peer *peer_get(struct kernel *k, const char *name)
{
	struct peer *p = map_find_str(k->peers, name);

	if (p || !name_kernel_ok(name) || map_size(k->peers) >= PEERS_MAX)
		return p;
	p = mem_new(struct peer);
	snprintf(p->name, sizeof(p->name), "%s", name);
	list_init(&p->queue);
	list_init(&p->introduced);
	p->forgotten = map_new();
	p->took = map_new();
	p->vouched = map_new();
	p->vouched_for = map_new();
	courier_out_init(&p->out);
	courier_in_init(&p->in);
	map_put_str(k->peers, name, p);
	return p;
}

static bool hop_is_from(struct slice bytes, const char *kernel)
{
	struct hop hop = { .parts = NULL };
	bool yes = record_hop(bytes, &hop, NULL) == 0 && strcmp(hop.from, kernel) == 0;

	hop_fini(&hop);
	return yes;
}

static bool hop_is_birth(struct slice bytes)
{
	struct hop hop = { .parts = NULL };
	bool yes = record_hop(bytes, &hop, NULL) == 0 && hop.kind == HOP_CLONE;

	hop_fini(&hop);
	return yes;
}

/* The record by which it, or the ancestor of which it is a clone, came here: of another kernel's, so
 * behind those of moves from here to here; and the births of clones here since. */
static size_t vouch_hops(const struct resident *r, struct slice hops[VOUCH_HOPS_MAX])
{
	size_t n = 0, from = records_n(&r->hops);
	struct slice one;

	while (from > 0) {
		one = records_at(&r->hops, --from);
		if (!hop_is_from(one, r->k->config.name)) {
			hops[n++] = one;
			break;
		}
	}
	for (; from < records_n(&r->hops) && n < VOUCH_HOPS_MAX; from++) {
		one = records_at(&r->hops, from);
		if (hop_is_birth(one) && hop_is_from(one, r->k->config.name))
			hops[n++] = one;
	}
	return n;
}

/* Vouch for the carrier, or the client that has introduced itself, on this link unless that was done. A carrier that is not here, or whose
 * home this is not, gets no vouching and is refused at the other end. */
static void vouch(struct kernel *k, struct peer *p, const char *carrier)
{
	struct resident *r = resident_find(k, carrier);
	AUTOBUF frame = BUF_MAX(FRAME_BYTES_MAX);
	struct slice hops[VOUCH_HOPS_MAX];
	size_t n = 0;

	const struct introduced *i = r ? NULL : introduced_find(k, carrier);

	if (map_find_str(p->vouched, carrier) || (!r && !i))
		return;
	n = r ? vouch_hops(r, hops) : 0;
	vouch_encode(&frame, blob_slice(r ? &r->ticket_cose : &i->introduction), hops, n);
	if (buf_check(&frame) == 0 &&
		link_send(p->link, LINK_CONTROL, frame.data, frame.len) == 0)
		map_put_str(p->vouched, carrier, p);
}

static int send_now(struct kernel *k, struct peer *p, struct slice frame, uint64_t call,
	const char *vouch_for)
{
	int rc;

	if (vouch_for && vouch_for[0])
		vouch(k, p, vouch_for);
	rc = link_send(p->link, LINK_POSTS, frame.p, frame.n);
	if (rc == 0)
		call_mark_sent(k, call);
	return rc;
}

/* ---- posts to carriers */

static int say_taken(struct peer *p)
{
	AUTOBUF frame = BUF_INIT;
	int rc;

	courier_in_say(&p->in, &frame);
	rc = link_send(p->link, LINK_CONTROL, frame.data, frame.len);
	if (rc < 0)
		courier_in_unsaid(&p->in); /* the tick tries again */
	return rc;
}

int peer_carry(struct kernel *k, struct peer *p, const struct carry *y, const char *vouch_for)
{
	AUTOBUF frame = BUF_MAX(FRAME_BYTES_MAX + 16);

	if (!p->link)
		return ERR_CLOSED;
	carry_encode(&frame, y);
	if (buf_check(&frame) < 0)
		return ERR_TOO_LARGE;
	if (vouch_for)
		vouch(k, p, vouch_for);
	if (courier_in_due(&p->in))
		say_taken(p); /* goes along */
	return link_send(p->link, LINK_POSTS, frame.data, frame.len);
}

/* At the end of the turn, so that it is one frame for all that failed in it. */
static void say_later(struct kernel *k, void *arg)
{
	AUTOFREE char *name = arg;
	struct peer *p = map_find_str(k->peers, name);

	if (!p)
		return;
	p->say_due = false;
	if (p->link && courier_in_due(&p->in))
		say_taken(p);
}

void peer_took(struct kernel *k, struct peer *p)
{
	/* What was delivered is said when something goes there anyway, at the tick, or when many
	 * wait for it; what failed at once. */
	if (p->say_due || (!p->in.failed && p->in.taken - p->in.said < TAKEN_EVERY))
		return;
	p->say_due = true;
	kernel_later(k, say_later, mem_strdup(p->name));
}

/* The post in this frame could not be sent: its sender hears of it. */
static void frame_failed(struct kernel *k, struct slice frame, int rc, const char *text)
{
	struct cbor_cursor c;
	struct post p;

	if (frame.n > 4 &&
		frame_open(&c, (struct slice){ frame.p + 4, frame.n - 4 }) == FRAME_POST &&
		post_decode(&c, &p) == 0)
		kernel_fail_back(k, &p, rc, text);
}

static void queue_fail(struct kernel *k, struct peer *p, int rc, const char *text)
{
	struct list failed;

	list_init(&failed);
	list_take(&p->queue, &failed);
	p->queued_bytes = 0;
	while (!list_empty(&failed)) {
		struct waiting_post *w = LIST_ITEM(failed.next, struct waiting_post, node);

		list_del(&w->node);
		frame_failed(k, (struct slice){ w->frame, w->n }, rc, text);
		free(w);
	}
}

static void queue_flush(struct kernel *k, struct peer *p)
{
	while (p->link && !list_empty(&p->queue)) {
		struct waiting_post *w = LIST_ITEM(p->queue.next, struct waiting_post, node);

		/* A call that was given up as never sent must not leave after that: the carrier
		 * of such a SEND runs on here. */
		if (w->call && !call_waits(k, w->call)) {
			list_del(&w->node);
			p->queued_bytes -= w->n;
			free(w);
			continue;
		}
		int rc =
			send_now(k, p, (struct slice){ w->frame, w->n }, w->call, w->vouch_for);

		if (rc == ERR_FULL)
			return; /* the tick tries again until the post's deadline */
		list_del(&w->node);
		p->queued_bytes -= w->n;
		if (rc < 0)
			frame_failed(k, (struct slice){ w->frame, w->n }, ERR_UNREACHABLE,
				"the link closed");
		free(w);
	}
}

/* ---- finding a kernel */

static void dial(struct kernel *k, struct peer *p)
{
	int rc;

	p->dialling = true;
	rc = links_dial(k->links, p->name);
	log_debug("dialling", KV_STR("peer", p->name), KV_STR("address", p->address[0]),
		KV_STR("error", rc < 0 ? err_word(rc) : ""));
	if (rc < 0)
		p->dialling = false;
}

static bool address_from_config(struct kernel *k, struct peer *p)
{
	for (size_t i = 0; i < k->config.n_peers; i++) {
		const struct config_peer *cp = &k->config.peers[i];

		if (strcmp(cp->name, p->name) != 0)
			continue;
		p->n_address = cp->n_address;
		memcpy(p->address, cp->address, sizeof(p->address));
		return p->n_address > 0;
	}
	return false;
}

struct lookup {
	char name[64];
};

static void address_none(struct kernel *k, struct peer *p, int rc, const char *text)
{
	char why[256];

	if (rc == ERR_NOT_FOUND && strchr(p->name, '.')) {
		/* A name with a dot may be a host's name: DNS decides. */
		size_t n;
		unsigned port = name_kernel_port(p->name, &n);

		snprintf(
			p->address[0], sizeof(p->address[0]), "%.*s:%u", (int)n, p->name, port);
		p->n_address = 1;
		dial(k, p);
		return;
	}
	snprintf(why, sizeof(why), "%s: %s", p->name,
		rc == ERR_NOT_FOUND
			? "no kernel of that name is in the Directory (see: tos kernels)"
			: text);
	queue_fail(k, p, ERR_UNREACHABLE, why);
	streams_unreachable(k, p, why);
}

static void on_lookup(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	struct lookup *lu = arg;
	struct peer *p = map_find_str(k->peers, lu->name);

	free(lu);
	if (!p)
		return;
	p->looking_up = false;
	if (p->link)
		return;
	if (rc < 0) {
		address_none(k, p, rc, text);
		return;
	}
	const struct tos_value *list = tos_get(tos_at(elements, 0), "addresses");

	p->n_address = 0;
	for (size_t i = 0; i < tos_len(list) && p->n_address < ARRAY_LEN(p->address); i++) {
		const char *a = tos_as_text(tos_at(list, i), "");

		if (a[0] && strlen(a) < sizeof(p->address[0]))
			snprintf(p->address[p->n_address++], sizeof(p->address[0]), "%s", a);
	}
	if (p->n_address) {
		dial(k, p);
		return;
	}
	/* It only dials out: have it dial us. The link then comes in, or the posts' deadlines
	 * pass. */
	struct tos_value *args = tos_map();

	tos_set(args, "to", tos_text(p->name));
	tos_set(args, "dial", tos_text(k->config.name));
	kernel_notify(k, k->config.registrar, "Kernel", "RELAY_DIAL", args);
}

static void peer_connect(struct kernel *k, struct peer *p)
{
	struct lookup *lu;
	struct tos_value *args;

	if (p->link || p->dialling || p->looking_up || k->stopping)
		return;
	if (address_from_config(k, p) || p->n_address) {
		dial(k, p);
		return;
	}
	if (!k->config.registrar[0] || strcmp(k->config.registrar, p->name) == 0) {
		address_none(k, p, ERR_NOT_FOUND, "");
		return;
	}
	lu = mem_new(struct lookup);
	snprintf(lu->name, sizeof(lu->name), "%s", p->name);
	p->looking_up = true;
	args = tos_map();
	tos_set(args, "name", tos_text(p->name));
	kernel_call(
		k, k->config.registrar, "Directory", "LOOKUP", args, LOOKUP_MS, on_lookup, lu);
}

static void connect_again(struct kernel *k, struct peer *p, int64_t now_ms);

void peer_reach(struct kernel *k, struct peer *p)
{
	if (p->out.n)
		connect_again(k, p, clock_ms());
	else
		peer_connect(k, p);
}

int peer_send(struct kernel *k, const char *name, struct slice frame, int64_t deadline_at_ms,
	uint64_t call, const char *vouch_for, struct errmsg *em)
{
	struct peer *p = peer_get(k, name);
	struct waiting_post *w;
	int rc;

	if (!p)
		return err_set(em, ERR_NAME, "%s is not a kernel's name", name);
	if (p->link && list_empty(&p->queue)) {
		rc = send_now(k, p, frame, call, vouch_for);
		if (rc != ERR_FULL)
			return rc;
	}
	if (p->queued_bytes + frame.n > PEER_QUEUE_BYTES)
		return err_set(em, ERR_FULL, "too much waits for %s", name);
	w = mem_try(sizeof(*w) + frame.n);
	if (!w)
		return ERR_NOMEM;
	w->deadline_at_ms = deadline_at_ms;
	w->call = call;
	snprintf(w->vouch_for, sizeof(w->vouch_for), "%s", vouch_for ? vouch_for : "");
	w->n = frame.n;
	memcpy(w->frame, frame.p, frame.n);
	list_add(&p->queue, &w->node);
	p->queued_bytes += frame.n;
	peer_connect(k, p);
	return 0;
}

size_t peer_resolve(struct kernel *k, const char *name, char (*out)[128], size_t most)
{
	struct peer *p = peer_get(k, name);
	size_t n;

	if (!p)
		return 0;
	if (!p->n_address)
		address_from_config(k, p);
	n = p->n_address < most ? p->n_address : most;
	memcpy(out, p->address, n * sizeof(*out));
	return n;
}

void peer_dial_failed(struct kernel *k, const char *name, int rc, const char *why)
{
	struct peer *p = map_find_str(k->peers, name);
	char text[ERRMSG_BYTES];

	if (!p)
		return;
	p->dialling = false;
	log_debug("dial failed", KV_STR("peer", name), KV_STR("error", err_word(rc)),
		KV_STR("reason", why));
	if (p->link)
		return;
	p->n_address = 0; /* it may have moved: look it up again */
	snprintf(text, sizeof(text), "%s: %s", name, why);
	queue_fail(k, p, ERR_UNREACHABLE, text);
	streams_unreachable(k, p, text);
}

void peer_want(struct kernel *k, const char *name, bool want)
{
	struct peer *p = peer_get(k, name);

	if (!p || strcmp(name, k->config.name) == 0)
		return;
	if (want && p->wants++ == 0) {
		if (!p->n_address)
			address_from_config(k, p);
		links_want(k->links, name, p->n_address > 0);
		peer_connect(k, p);
	} else if (!want && p->wants > 0 && --p->wants == 0) {
		links_want(k->links, name, false);
	}
}

/* What it vouched for is of the link that it said so on. */
static void vouched_for_drop(struct peer *p)
{
	struct origin *o;
	size_t it = 0;

	introduced_clear(p);
	while ((o = map_next(p->vouched_for, &it, NULL, NULL)))
		free(o);
	map_free(p->vouched_for);
	p->vouched_for = NULL;
}

static bool boot_is(const struct peer *p, const struct hello *h)
{
	return p->boot_known && p->boot_count == h->boot_count &&
	       memcmp(p->boot_nonce, h->boot_nonce, sizeof(p->boot_nonce)) == 0;
}

/* What went over the last link will not be answered any more. */
static void peer_lost(struct kernel *k, struct peer *p, const char *why)
{
	p->given_up = true;
	streams_lost(k, p, why);
	calls_lost(k, p->name, why);
	callers_lost(k, p->name, p->lost_ms, why);
	watchers_drop(k, p->name, true);
}

void peer_link_up(struct kernel *k, struct link *l, const struct hello *h)
{
	struct peer *p = peer_get(k, link_name(l));
	bool same_boot;

	if (!p)
		return;
	same_boot = boot_is(p, h);
	if (p->boot_known && !same_boot)
		peer_lost(k, p, "the kernel has started anew");
	if (!same_boot) /* the one that took something amiss is gone */
		p->again_at_ms = p->again_ms = 0;
	map_free(p->vouched);
	p->vouched = map_new();
	vouched_for_drop(p);
	p->vouched_for = map_new();
	p->link = l;
	p->given_up = false;
	p->dialling = false;
	p->boot_count = h->boot_count;
	memcpy(p->boot_nonce, h->boot_nonce, sizeof(p->boot_nonce));
	p->boot_known = true;
	if (h->address[0] && !p->n_address) {
		snprintf(p->address[0], sizeof(p->address[0]), "%s", h->address);
		p->n_address = 1;
	}
	if (same_boot)
		courier_in_say_again(&p->in);
	else
		courier_in_fini(&p->in);
	streams_link_up(k, p, same_boot);
	queue_flush(k, p);
}

void peer_link_down(struct kernel *k, struct link *l)
{
	struct peer *p = map_find_str(k->peers, link_name(l));
	struct link_stats st;

	if (p && p->link == l) {
		p->link = NULL;
		p->dialling = false;
		p->lost_ms = clock_ms();
		link_stats(l, &st);
		if (st.since_ms >= STEADY_MS)
			p->again_at_ms = p->again_ms = 0;
		/* What a peer takes amiss is sent to it again when the link is back: not without a
		 * pause. */
		if (!list_empty(&p->queue) || p->out.n || p->n_streams)
			connect_again(k, p, p->lost_ms);
	}
}

static void connect_again(struct kernel *k, struct peer *p, int64_t now_ms)
{
	if (p->dialling || p->looking_up || now_ms < p->again_at_ms)
		return;
	p->again_ms = p->again_ms ? 2 * p->again_ms : AGAIN_MS;
	if (p->again_ms > AGAIN_MOST_MS)
		p->again_ms = AGAIN_MOST_MS;
	p->again_at_ms = now_ms + p->again_ms;
	peer_connect(k, p);
}

void peers_tick(struct kernel *k, int64_t now_ms)
{
	struct peer *p;
	size_t it = 0;

	while ((p = map_next(k->peers, &it, NULL, NULL))) {
		struct list *pos, *tmp;

		if (p->link)
			queue_flush(k, p);
		LIST_EACH_SAFE(pos, tmp, &p->queue)
		{
			struct waiting_post *w = LIST_ITEM(pos, struct waiting_post, node);
			char text[160];

			if (now_ms < w->deadline_at_ms)
				continue;
			list_del(&w->node);
			p->queued_bytes -= w->n;
			snprintf(text, sizeof(text), "no link to %s in time", p->name);
			frame_failed(
				k, (struct slice){ w->frame, w->n }, ERR_UNREACHABLE, text);
			free(w);
			break; /* the failure may have changed the queue */
		}
		/* Something waits, or the link is wanted, and nobody is trying. */
		if (!p->link &&
			(!list_empty(&p->queue) || p->wants || p->out.n || p->n_streams))
			connect_again(k, p, now_ms);
		if (p->link && courier_in_due(&p->in))
			say_taken(p);
		if (!p->link && p->lost_ms && !p->given_up &&
			now_ms - p->lost_ms >= k->config.lost_ms)
			peer_lost(k, p, "the link was lost");
		/* A name that never was a peer's is forgotten: else a carrier that posts to
		 * names of its own making would use up the table for everybody. */
		if (!p->link && !p->boot_known && !p->wants && !p->dialling && !p->looking_up &&
			list_empty(&p->queue) && !p->n_streams) {
			map_del_str(k->peers, p->name);
			courier_in_fini(&p->in);
			map_free(p->vouched);
			map_free(p->took); /* emptied when its link went down */
			vouched_for_drop(p);
			map_free(p->forgotten);
			free(p);
		}
	}
}

/* ---- vouching */

/* The first record brought it to p, signed by another: nobody vouches for itself. A clone that was made
 * there is of a carrier for which that is so, or whose home p is. */
static bool voucher_fits(const struct peer *p, const uint8_t root[DIGEST_BYTES],
	const struct hop *hop, bool brings, char suffix[64])
{
	bool fits = hop->kind != HOP_CLONE ? strcmp(hop->from, p->name) != 0
					   : !brings && strcmp(hop->from, p->name) == 0 &&
						     family_parent(suffix, hop->suffix);
	uint8_t id[DIGEST_BYTES];

	snprintf(suffix, 64, "%s", hop->suffix);
	family_id(root, suffix, id);
	return fits && memcmp(hop->id, id, sizeof(id)) == 0;
}

static bool vouched_clone(struct cbor_cursor c, uint64_t n)
{
	struct hop hop = { .parts = NULL };
	struct slice last = { NULL, 0 };
	bool yes;

	for (uint64_t i = 0; i < n; i++)
		last = cbor_bytes(&c, 1, FRAME_BYTES_MAX);
	yes = n && record_hop(last, &hop, NULL) == 0 && hop.suffix[0];
	hop_fini(&hop);
	return yes;
}

int peer_vouch_frame(struct kernel *k, struct link *l, struct slice ticket_cose,
	struct slice hops, struct errmsg *em)
{
	struct peer *p = map_find_str(k->peers, link_name(l));
	struct ticket t = { .path = NULL };
	struct cert_info owner, kernel;
	struct cbor_cursor c;
	struct trust trust;
	struct hop hop = { .parts = NULL };
	struct origin *o;
	uint8_t id[DIGEST_BYTES];
	char name[NAME_BYTES_MAX + sizeof(hop.suffix)], suffix[sizeof(hop.suffix)] = "";
	uint64_t n;
	bool ok;
	int rc;

	if (!p)
		return ERR_STATE;
	if (introduced_vouched(k, p, ticket_cose))
		return 0;
	rc = ticket_verify(k, ticket_cose, &t, id, &owner, em);
	if (rc < 0) {
		/* Not the link's fault as such: the carrier stays without a voucher. */
		metric_add(k->metrics, "vouches_refused_total", NULL, 1);
		ticket_fini(&t);
		return 0;
	}
	ok = strcmp(t.home, p->name) == 0;
	cbor_init(&c, hops.p, hops.n);
	n = cbor_open_array_max(&c, VOUCH_HOPS_MAX);
	kernel_trust(k, &trust);
	/* A home needs no record of an original. */
	for (uint64_t i = ok && !vouched_clone(c, n) ? n : 0; i < n && (ok || i == 0); i++) {
		rc = record_verify(
			&trust, cbor_bytes(&c, 1, FRAME_BYTES_MAX), &hop, &kernel, em);
		ok = rc == 0 && kernel.kind == CERT_KERNEL &&
		     strcmp(kernel.name, hop.from) == 0 && strcmp(hop.dest, p->name) == 0 &&
		     voucher_fits(p, id, &hop, i == 0 && !ok, suffix);
		hop_fini(&hop);
	}
	snprintf(name, sizeof(name), "%s%s", t.name, suffix);
	ok = ok && strlen(name) <= NAME_BYTES_MAX;
	if (!ok) {
		metric_add(k->metrics, "vouches_refused_total", NULL, 1);
	} else if (map_size(p->vouched_for) < PEER_VOUCHES_MAX) {
		o = mem_new(struct origin);
		o->cls = ORIGIN_CARRIER;
		snprintf(o->name, sizeof(o->name), "%.*s", NAME_BYTES_MAX, name);
		snprintf(o->kernel, sizeof(o->kernel), "%s", p->name);
		snprintf(o->principal, sizeof(o->principal), "%s", owner.name);
		/* Its author is not known here: no role that needs both. */
		o->roles = carrier_roles(&owner, NULL);
		o->owner_only = rights_of(k, &owner);
		free(map_put_str(p->vouched_for, o->name, o));
	}
	ticket_fini(&t);
	return 0;
}

/* Of a carrier the sender is its name, with or without an inbox behind it. */
const struct origin *peer_vouched_for(struct kernel *k, struct peer *p, struct slice sender)
{
	const struct origin *o = map_find(p->vouched_for, sender.p, sender.n);
	const uint8_t *slash = o ? NULL : memchr(sender.p, '/', sender.n);

	if (slash)
		o = map_find(p->vouched_for, sender.p, (size_t)(slash - sender.p));
	introduced_heard(p, o);
	return introduced_holds(k, o);
}

int peers_init(struct kernel *k, struct errmsg *em)
{
	(void)em;
	k->peers = map_new();
	return 0;
}
