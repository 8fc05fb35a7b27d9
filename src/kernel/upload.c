/*
 * Content by its digest: code and envelopes too large for a post travel as chunks ahead of it.
 * Staged in memory, bounded, forgotten after a while. Sending goes as far as the peer's credit
 * allows and on when it gives more.
 */
#include "kernel/upload.h"

#include <string.h>

#include "base/clock.h"

#define UPLOAD_BYTES_MAX ((uint64_t)192 << 20)
#define UPLOADS_BYTES    ((uint64_t)512 << 20)
#define UPLOADS_MAX      1000
#define UPLOAD_KEEP_MS   60000
#define ANSWER_BYTES_MAX ((size_t)128 << 20)
#define SENDING_BYTES    ((size_t)512 << 20) /* of all answers on their way */

struct upload {
	uint8_t digest[DIGEST_BYTES];
	char from[NAME_BYTES_MAX + 1];
	uint64_t total, have;
	int64_t touched_ms;
	bool whole;
	uint8_t *bytes;
};

struct sending {
	struct list node;
	char peer[NAME_BYTES_MAX + 1];
	uint8_t digest[DIGEST_BYTES];
	struct blob content;
	uint64_t offset;
	content_sent_fn *done;
	void *arg;
};

/* What one sender sends is for its own posts: nobody else can spoil it. */
struct upload_key {
	uint8_t bytes[DIGEST_BYTES + NAME_BYTES_MAX];
	size_t n;
};

static void upload_key(struct upload_key *key, const uint8_t *digest, const char *from)
{
	key->n = DIGEST_BYTES + strnlen(from, NAME_BYTES_MAX);
	memcpy(key->bytes, digest, DIGEST_BYTES);
	memcpy(key->bytes + DIGEST_BYTES, from, key->n - DIGEST_BYTES);
}

static struct upload *upload_of(struct kernel *k, const uint8_t *digest, const char *from)
{
	struct upload_key key;

	upload_key(&key, digest, from);
	return map_find(k->uploads, key.bytes, key.n);
}

static uint64_t staged_bytes; /* of this process's one kernel */
static struct list sendings;
static bool sendings_ready;

static void upload_free(struct kernel *k, struct upload *u)
{
	struct upload_key key;

	upload_key(&key, u->digest, u->from);
	map_del(k->uploads, key.bytes, key.n);
	staged_bytes -= u->total;
	free(u->bytes);
	free(u);
}

static struct upload *upload_new(
	struct kernel *k, const char *from, const struct chunk *c, struct errmsg *em)
{
	struct upload_key key;
	struct upload *u;

	if (c->total > UPLOAD_BYTES_MAX) {
		err_set(em, ERR_TOO_LARGE, "content of %llu bytes",
			(unsigned long long)c->total);
		return NULL;
	}
	if (map_size(k->uploads) >= UPLOADS_MAX || staged_bytes + c->total > UPLOADS_BYTES) {
		err_set(em, ERR_FULL, "too much content is staged");
		return NULL;
	}
	u = mem_new(struct upload);
	u->bytes = mem_try((size_t)c->total);
	if (!u->bytes) {
		free(u);
		return NULL;
	}
	memcpy(u->digest, c->digest.p, DIGEST_BYTES);
	u->total = c->total;
	staged_bytes += u->total;
	snprintf(u->from, sizeof(u->from), "%s", from);
	upload_key(&key, u->digest, u->from);
	map_put(k->uploads, key.bytes, key.n, u);
	return u;
}

/* Chunks of one content come in order, from the beginning; one that does not fit is ignored,
 * and the post that needs the content then says that it is not there. */
int upload_chunk(struct kernel *k, struct link *l, const struct chunk *c, struct errmsg *em)
{
	struct upload *u = upload_of(k, c->digest.p, link_name(l));
	uint8_t digest[DIGEST_BYTES];

	if (u && c->offset == 0 && u->have < u->total) {
		upload_free(k, u); /* begun anew, perhaps on a new link */
		u = NULL;
	}
	if (!u && c->offset == 0) {
		u = upload_new(k, link_name(l), c, em);
		if (!u) {
			metric_add(k->metrics, "chunks_refused_total", NULL, 1);
			return 0;
		}
	}
	if (!u || u->whole || c->offset != u->have || c->total != u->total ||
		c->data.n > u->total - u->have)
		return 0;
	memcpy(u->bytes + u->have, c->data.p, c->data.n);
	u->have += c->data.n;
	u->touched_ms = clock_ms();
	if (u->have == u->total) {
		digest_bytes(u->bytes, (size_t)u->total, digest);
		if (memcmp(digest, u->digest, DIGEST_BYTES) == 0)
			u->whole = true;
		else
			upload_free(k, u);
	}
	return 0;
}

struct slice upload_find(
	struct kernel *k, const uint8_t digest[DIGEST_BYTES], const struct origin *from)
{
	struct upload *u = upload_of(k, digest, from->kernel[0] ? from->kernel : from->name);

	return u && u->whole ? (struct slice){ u->bytes, (size_t)u->total }
			     : (struct slice){ NULL, 0 };
}

void uploads_tick(struct kernel *k, int64_t now_ms)
{
	struct upload *u;
	size_t it = 0;

	while ((u = map_next(k->uploads, &it, NULL, NULL)))
		if (now_ms - u->touched_ms > UPLOAD_KEEP_MS)
			upload_free(k, u);
}

/* ---- sending */

/* A kernel's link, or a client's. */
static struct link *content_link(struct kernel *k, const char *peer)
{
	return strchr(peer, '/') ? map_find_str(k->clients, peer) : links_find(k->links, peer);
}

static void sending_end(struct kernel *k, struct sending *s, int rc)
{
	list_del(&s->node);
	s->done(k, s->arg, rc);
	blob_free(&s->content);
	free(s);
}

struct sending_over {
	content_sent_fn *done;
	void *arg;
	int rc;
};

static void over_later(struct kernel *k, void *arg)
{
	AUTOFREE struct sending_over *o = arg;

	o->done(k, o->arg, o->rc);
}

/* True when there is nothing more to do for it. */
static bool sending_go(struct kernel *k, struct sending *s)
{
	struct link *l = content_link(k, s->peer);

	if (!l) {
		sending_end(k, s, ERR_CLOSED);
		return true;
	}
	while (s->offset < s->content.n && link_chunk_room(l) > 0) {
		AUTOBUF frame = BUF_MAX(CHUNK_BYTES_MAX + 256);
		size_t n = s->content.n - (size_t)s->offset;
		struct chunk c = { .digest = { s->digest, DIGEST_BYTES },
			.offset = s->offset,
			.total = s->content.n };

		if (n > CHUNK_BYTES_MAX)
			n = CHUNK_BYTES_MAX;
		c.data = (struct slice){ s->content.p + s->offset, n };
		chunk_encode(&frame, &c);
		if (link_send(l, LINK_CHUNKS, frame.data, frame.len) < 0)
			return false;
		s->offset += n;
	}
	if (s->offset < s->content.n)
		return false;
	sending_end(k, s, 0);
	return true;
}

int content_send(struct kernel *k, const char *peer, const uint8_t digest[DIGEST_BYTES],
	struct slice content, content_sent_fn *done, void *arg)
{
	struct sending *s;

	if (!sendings_ready) {
		list_init(&sendings);
		sendings_ready = true;
	}
	if (!content_link(k, peer)) {
		struct sending_over *o = mem_new(struct sending_over);

		*o = (struct sending_over){ done, arg, ERR_CLOSED };
		kernel_later(k, over_later, o);
		return 0;
	}
	s = mem_new(struct sending);
	snprintf(s->peer, sizeof(s->peer), "%s", peer);
	memcpy(s->digest, digest, DIGEST_BYTES);
	blob_set(&s->content, content);
	s->done = done;
	s->arg = arg;
	list_add(&sendings, &s->node);
	sending_go(k, s);
	return 0;
}

/* On with what is being sent to the peer, or an end to it. Either may begin another sending,
 * which is put at the end of the list. */
static void sendings_of(struct kernel *k, const char *peer, bool down)
{
	struct list *pos, *tmp;

	if (!sendings_ready)
		return;
	LIST_EACH_SAFE(pos, tmp, &sendings)
	{
		struct sending *s = LIST_ITEM(pos, struct sending, node);

		if (strcmp(s->peer, peer) != 0)
			continue;
		if (down)
			sending_end(k, s, ERR_CLOSED);
		else
			sending_go(k, s);
	}
}

void content_writable(struct kernel *k, struct link *l)
{
	sendings_of(k, link_name(l), false);
}

void content_link_down(struct kernel *k, const char *peer)
{
	sendings_of(k, peer, true);
}

/* ---- answers that do not fit a frame */

struct large_answer {
	char dest[NAME_BYTES_MAX + 1], folder[NAME_BYTES_MAX + 1];
	uint64_t tag;
	uint8_t digest[DIGEST_BYTES];
	size_t n;
};

static void on_answer_content(struct kernel *k, void *arg, int rc)
{
	AUTOFREE struct large_answer *a = arg;
	struct tos_value *elements, *m;

	if (rc < 0)
		return; /* the link closed: nobody waits any more */
	m = tos_map();
	tos_set(m, "digest", tos_bytes(a->digest, DIGEST_BYTES));
	tos_set(m, "bytes", tos_int((int64_t)a->n));
	tos_set(m, "folder", tos_text(a->folder));
	elements = tos_array();
	tos_push(elements, m);
	kernel_answer(k, a->dest, a->tag, POST_ANSWER, ANSWER_CONTENT, elements);
	tos_value_free(elements);
}

/* Clients that ask and don't read must not use up the memory. */
static size_t sending_bytes(void)
{
	struct list *pos, *tmp;
	size_t n = 0;

	if (sendings_ready)
		LIST_EACH_SAFE(pos, tmp, &sendings)
	n += LIST_ITEM(pos, struct sending, node)->content.n;
	return n < SENDING_BYTES ? n : SENDING_BYTES;
}

int content_answer(struct kernel *k, const char *dest, uint64_t tag, const char *folder,
	const struct tos_value *elements)
{
	struct large_answer *a;
	struct address to;
	uint8_t *bytes = NULL;
	size_t n = 0;
	int rc = address_parse(dest, strlen(dest), &to, NULL);
	bool kernel = to.kind == ADDRESS_INBOX && strcmp(to.inbox, "Kernel") == 0 &&
		      strcmp(to.kernel, k->config.name) != 0;

	if (rc < 0 || !(kernel || map_find_str(k->clients, dest)))
		return ERR_TOO_LARGE;
	rc = tos_encode(elements, &bytes, &n);
	if (rc == 0 && (n > ANSWER_BYTES_MAX || n > SENDING_BYTES - sending_bytes()))
		rc = ERR_TOO_LARGE;
	if (rc == 0) {
		a = mem_new(struct large_answer);
		snprintf(a->dest, sizeof(a->dest), "%s", dest);
		snprintf(a->folder, sizeof(a->folder), "%s", folder);
		a->tag = tag;
		a->n = n;
		digest_bytes(bytes, n, a->digest);
		content_send(k, kernel ? to.kernel : dest, a->digest,
			(struct slice){ bytes, n }, on_answer_content, a);
	}
	free(bytes);
	return rc;
}
