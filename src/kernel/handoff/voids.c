/*
 * VOID: who went on with a higher incarnation tells the kernel that its carrier may have gone to, until
 * that has answered (doc/protocol.md, "In doubt"). Rows of the journal, sent when that kernel is linked,
 * and again after a while where no answer came though the link stayed up.
 */
#include "kernel/handoff/handoff.h"

#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "kernel/handoff/moves.h"

#define AGAIN_MOST_MS 60000

/* A kernel for which there are voids. Its link is kept up for as long as there are more. */
struct void_peer {
	unsigned n_asked;              /* whose answer is waited for */
	bool failed;                   /* one of them has had none */
	bool more;                     /* there is another one, that came meanwhile */
	int64_t again_at_ms, pause_ms; /* 0: nothing is to be said again */
};

struct void_sent {
	uint8_t key[DIGEST_BYTES + 192];
	size_t n;
	char dest[64];
};

void void_put(struct store_txn *t, const struct buf *id, const struct incarnation *e,
	const char *dest, int64_t expires_ms)
{
	AUTOBUF key = BUF_INIT;
	struct tos_value *m = tos_map();

	buf_add(&key, id->data, id->len);
	buf_add_u8(&key, '|');
	buf_add_str(&key, dest);
	tos_set(m, "dest", tos_text(dest));
	tos_set(m, "id", tos_bytes(id->data, DIGEST_BYTES));
	tos_set(m, "e", incarnation_value(e));
	journal_put(t, T_VOID, &key, m, expires_ms);
}

static int void_of(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct tos_value *m = NULL;
	bool yes = tos_decode(body.p, body.n, 0, &m) == 0 &&
		   strcmp(tos_get_text(m, "dest", ""), arg) == 0;

	(void)key;
	(void)expires_ms;
	tos_value_free(m);
	return yes;
}

/* Acknowledged for good; its destination's link is kept up for as long as there are more. */
static void void_dropped(void *arg, int rc, const struct errmsg *em)
{
	struct {
		struct kernel *k;
		char dest[64];
	} *ctx = arg;
	struct kernel *k = ctx->k;
	struct errmsg none;

	(void)em;
	if (rc == 0 && map_find_str(k->void_peers, ctx->dest) &&
		store_each(k->store, T_VOID, (struct slice){ NULL, 0 }, void_of, ctx->dest,
			&none) == 0) {
		free(map_del_str(k->void_peers, ctx->dest));
		peer_want(k, ctx->dest, false);
	}
	free(ctx);
}

void handoff_void_due(struct kernel *k, const char *dest)
{
	if (strcmp(dest, k->config.name) == 0)
		return;
	if (!map_find_str(k->void_peers, dest)) {
		map_put_str(k->void_peers, dest, mem_new(struct void_peer));
		peer_want(k, dest, true);
	}
	if (links_find(k->links, dest))
		handoff_voids(k, dest);
}

static int void_loaded(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct tos_value *m = NULL;

	(void)key;
	(void)expires_ms;
	if (tos_decode(body.p, body.n, 0, &m) == 0 &&
		name_kernel_ok(tos_get_text(m, "dest", "")))
		handoff_void_due(arg, tos_get_text(m, "dest", ""));
	tos_value_free(m);
	return 0;
}

void handoff_voids_begin(struct kernel *k)
{
	struct errmsg em;

	store_each(k->store, T_VOID, (struct slice){ NULL, 0 }, void_loaded, k, &em);
}

/* All that were asked have answered, or have had their time. */
static void peer_asked(struct kernel *k, struct void_peer *p)
{
	if (p->failed) {
		p->pause_ms = p->pause_ms ? 2 * p->pause_ms : k->config.retry_ms;
		if (p->pause_ms > AGAIN_MOST_MS)
			p->pause_ms = AGAIN_MOST_MS;
		p->again_at_ms = clock_ms() + p->pause_ms;
	} else {
		p->pause_ms = 0;
		p->again_at_ms = p->more ? clock_ms() : 0;
	}
	p->failed = p->more = false;
}

static void on_void(
	struct kernel *k, void *arg, int rc, const char *text, const struct tos_value *elements)
{
	AUTOFREE struct void_sent *v = arg;
	struct void_peer *p = map_find_str(k->void_peers, v->dest);
	struct {
		struct kernel *k;
		char dest[64];
	} * ctx;
	struct store_txn *t;

	(void)text;
	(void)elements;
	if (p) {
		p->failed |= rc < 0;
		if (p->n_asked > 0 && --p->n_asked == 0)
			peer_asked(k, p);
	}
	if (rc == 0) {
		FAULT_AT(VOID_ACKED);
		t = store_begin(k->store);
		store_del(t, T_VOID, v->key, v->n);
		ctx = mem_zero(sizeof(*ctx));
		ctx->k = k;
		snprintf(ctx->dest, sizeof(ctx->dest), "%s", v->dest);
		if (store_commit(t, void_dropped, ctx) < 0)
			free(ctx);
	}
}

static int void_row(void *arg, struct slice key, struct slice body, int64_t expires_ms)
{
	struct {
		struct kernel *k;
		const char *peer;
		struct void_peer *p;
	} *ctx = arg;
	struct tos_value *m = NULL, *args;
	struct void_sent *v;

	(void)expires_ms;
	if (tos_decode(body.p, body.n, 0, &m) < 0)
		return 0;
	if (strcmp(tos_get_text(m, "dest", ""), ctx->peer) == 0 && key.n <= sizeof(v->key)) {
		v = mem_new(struct void_sent);
		memcpy(v->key, key.p, key.n);
		v->n = key.n;
		snprintf(v->dest, sizeof(v->dest), "%s", ctx->peer);
		args = tos_map();
		tos_set(args, "id", tos_value_copy(tos_get(m, "id")));
		tos_set(args, "e", tos_value_copy(tos_get(m, "e")));
		ctx->p->n_asked++;
		FAULT_AT(VOID_SEND);
		kernel_call(ctx->k, ctx->peer, "Handoff", "VOID", args, ctx->k->config.call_ms,
			on_void, v);
	}
	tos_value_free(m);
	return 0;
}

void handoff_voids(struct kernel *k, const char *peer)
{
	struct {
		struct kernel *k;
		const char *peer;
		struct void_peer *p;
	} ctx = { k, peer, map_find_str(k->void_peers, peer) };
	struct errmsg em;

	if (!ctx.p)
		return;
	if (ctx.p->n_asked) {
		ctx.p->more = true;
		return;
	}
	ctx.p->again_at_ms = 0;
	store_each(k->store, T_VOID, (struct slice){ NULL, 0 }, void_row, &ctx, &em);
}

void handoff_voids_tick(struct kernel *k, int64_t now_ms)
{
	struct void_peer *p;
	const void *name;
	size_t it = 0, n;
	char peer[64];

	while ((p = map_next(k->void_peers, &it, &name, &n))) {
		if (!p->again_at_ms || now_ms < p->again_at_ms || n >= sizeof(peer))
			continue;
		memcpy(peer, name, n);
		peer[n] = 0;
		/* Where it is not linked any more its next link has them said. */
		if (links_find(k->links, peer))
			handoff_voids(k, peer);
	}
}
