/*
 * Frames: the splitter, and the encoder and decoder of each. See frame.h and doc/protocol.md,
 * "Frames". No sockets, no policy: what a frame means is decided by src/link/ and src/kernel/.
 */
#include "wire/frame.h"

#include <string.h>

#include <tos/value.h>

#include "base/mem.h"
#include "base/text.h"
#include "wire/tree.h"

#define LENGTH_BYTES    4
#define FRAME_ITEMS_MAX 16
#define BYE_TEXT_MAX    512

#ifdef TOS_HOSTILE
#define HOSTILE 1 /* what is held too long is overwritten at once */
#else
#define HOSTILE 0
#endif

/* ---- splitting */

size_t frame_begin(struct buf *b)
{
	static const uint8_t zero[LENGTH_BYTES];
	size_t at = b->len;

	buf_add(b, zero, sizeof(zero));
	return at;
}

static void frame_end_within(struct buf *b, size_t at, size_t max)
{
	size_t n;

	if (b->failed)
		return;
	n = b->len - at - LENGTH_BYTES;
	if (n > max - LENGTH_BYTES) { /* the peer would close the connection */
		b->len = at;
		b->failed = true;
		return;
	}
	for (size_t i = 0; i < LENGTH_BYTES; i++)
		b->data[at + i] = (uint8_t)(n >> 8 * (LENGTH_BYTES - 1 - i));
}

void frame_end(struct buf *b, size_t at)
{
	frame_end_within(b, at, UINT32_MAX);
}

int frame_next(struct frame_reader *r, struct slice *frame)
{
	size_t max = r->max ? r->max : FRAME_BYTES_MAX;
	const uint8_t *p;
	size_t n;

	/* Moving the rest down for each of many small frames would be quadratic. */
	if (r->eaten && (r->eaten == r->in.len || r->eaten >= r->in.cap / 2 || HOSTILE)) {
		buf_shift(&r->in, r->eaten);
		r->eaten = 0;
	}
	if (r->in.len - r->eaten < LENGTH_BYTES)
		return ERR_AGAIN;
	p = r->in.data + r->eaten;
	n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
	if (n == 0)
		return ERR_MALFORMED;
	if (n > max - LENGTH_BYTES)
		return ERR_TOO_LARGE;
	if (r->in.len - r->eaten - LENGTH_BYTES < n)
		return ERR_AGAIN;
	*frame = (struct slice){ p + LENGTH_BYTES, n };
	r->eaten += LENGTH_BYTES + n;
	return 0;
}

int frame_open(struct cbor_cursor *c, struct slice frame)
{
	uint64_t type;

	cbor_init(c, frame.p, frame.n);
	cbor_open_array_max(c, FRAME_ITEMS_MAX);
	type = cbor_uint(c, 255);
	return c->rc ? c->rc : (int)type;
}

/* The end of every decoder. */
static int frame_done(struct cbor_cursor *c)
{
	cbor_close(c);
	return cbor_finish(c);
}

/* The beginning and end of every encoder. */
static size_t frame_head(struct buf *b, enum frame_type type, uint64_t items)
{
	size_t at = frame_begin(b);

	cbor_put_array(b, items + 1);
	cbor_put_uint(b, type);
	return at;
}

/* What goes over links is bounded here; frames to children may hold such a frame and more. */
static void frame_tail(struct buf *b, size_t at)
{
	frame_end_within(b, at, FRAME_BYTES_MAX);
}

static void put_text(struct buf *b, struct slice s)
{
	cbor_put_text_n(b, (const char *)s.p, s.n);
}

/* ---- folders: [name, [element...]] */

int folder_check(struct slice folder, struct slice *name, uint64_t *n_elements)
{
	struct cbor_cursor c;
	struct slice s;
	uint64_t n;
	int rc;

	cbor_init(&c, folder.p, folder.n);
	cbor_open_array(&c, 2);
	s = cbor_text(&c, 0, NAME_BYTES_MAX);
	n = cbor_open_array_max(&c, UINT64_MAX);
	for (uint64_t i = 0; !c.rc && i < n; i++)
		cbor_any(&c);
	cbor_close(&c);
	rc = frame_done(&c);
	if (rc < 0)
		return rc;
	if (name)
		*name = s;
	if (n_elements)
		*n_elements = n;
	return 0;
}

int folder_form(struct slice folder)
{
	struct cbor_cursor c;

	cbor_init(&c, folder.p, folder.n);
	cbor_open_array(&c, 2);
	cbor_text(&c, 0, NAME_BYTES_MAX);
	cbor_open_array_max(&c, UINT64_MAX);
	return c.rc;
}

void folder_encode(
	struct buf *b, const char *name, const struct tos_value *const *elements, size_t n)
{
	cbor_put_array(b, 2);
	cbor_put_text(b, name);
	cbor_put_array(b, n);
	for (size_t i = 0; i < n; i++)
		value_put(b, elements[i]);
}

int folder_decode(struct slice folder, char *name, struct tos_value **elements)
{
	size_t budget = VALUE_BYTES_DEFAULT;
	struct tos_value *array = NULL;
	struct cbor_cursor c;
	struct slice s;
	int rc;

	cbor_init(&c, folder.p, folder.n);
	cbor_open_array(&c, 2);
	s = cbor_text(&c, 0, NAME_BYTES_MAX);
	if (!c.rc && cbor_peek(&c) != CBOR_ARRAY)
		cbor_fail(&c, ERR_MALFORMED);
	if (!c.rc)
		array = value_read(&c, &budget);
	rc = frame_done(&c);
	if (rc < 0) {
		tos_value_free(array);
		return rc;
	}
	text_copy(name, NAME_BYTES_MAX + 1, (const char *)s.p, s.n);
	*elements = array;
	return 0;
}

void folder_put(struct buf *b, struct slice name, struct slice elements)
{
	cbor_put_array(b, 2);
	put_text(b, name);
	cbor_put_raw(b, elements);
}

/* ---- post = [1, kind, dest, sender, tag, deadline_ms, trace, folder] */

/* The fields that every post has; the folder's inside was looked at by cbor_any(). */
static void post_fields(struct cbor_cursor *c, struct post *p)
{
	p->kind = (enum post_kind)cbor_uint(c, POST_FAILURE);
	p->dest = cbor_text(c, 1, NAME_BYTES_MAX);
	p->sender = cbor_text(c, 0, NAME_BYTES_MAX);
	p->tag = cbor_uint(c, UINT64_MAX);
	p->deadline_ms = (uint32_t)cbor_uint(c, UINT32_MAX);
	p->trace = cbor_bytes(c, 0, TRACE_BYTES);
	if (p->trace.n != 0 && p->trace.n != TRACE_BYTES)
		cbor_fail(c, ERR_MALFORMED);
	p->folder = cbor_any(c);
}

static int post_done(struct cbor_cursor *c, const struct post *p)
{
	int rc = frame_done(c);

	return rc < 0 ? rc : folder_form(p->folder);
}

int post_decode(struct cbor_cursor *c, struct post *p)
{
	post_fields(c, p);
	return post_done(c, p);
}

static void put_post(struct buf *b, const struct post *p)
{
	cbor_put_uint(b, p->kind);
	put_text(b, p->dest);
	put_text(b, p->sender);
	cbor_put_uint(b, p->tag);
	cbor_put_uint(b, p->deadline_ms);
	cbor_put_bytes(b, p->trace.p, p->trace.n);
	cbor_put_raw(b, p->folder);
}

void post_encode(struct buf *b, const struct post *p)
{
	size_t at = frame_head(b, FRAME_POST, 7);

	put_post(b, p);
	frame_tail(b, at);
}

int carry_decode(struct cbor_cursor *c, struct carry *y)
{
	y->seq = cbor_uint(c, INT64_MAX);
	y->seen = cbor_uint(c, INT64_MAX);
	post_fields(c, &y->post);
	return post_done(c, &y->post);
}

void carry_encode(struct buf *b, const struct carry *y)
{
	size_t at = frame_head(b, FRAME_CARRY, 9);

	cbor_put_uint(b, y->seq);
	cbor_put_uint(b, y->seen);
	put_post(b, &y->post);
	frame_tail(b, at);
}

/* ---- taken = [11, seq, [[seq, code, text]...]] */

void taken_decode(struct cbor_cursor *c, uint64_t *seq, uint64_t *n_rows)
{
	*seq = cbor_uint(c, INT64_MAX);
	*n_rows = cbor_open_array_max(c, TAKEN_ROWS_MAX);
}

void taken_row_decode(struct cbor_cursor *c, struct taken_row *row)
{
	struct slice word;

	cbor_open_array(c, 3);
	row->seq = cbor_uint(c, INT64_MAX);
	word = cbor_text(c, 1, 32);
	row->text = cbor_text(c, 0, TAKEN_TEXT_MAX);
	row->rc = word.n ? err_from_word((const char *)word.p, word.n) : ERR_UNKNOWN;
	if (row->rc >= 0)
		cbor_fail(c, ERR_MALFORMED);
	cbor_close(c);
}

int taken_finish(struct cbor_cursor *c)
{
	cbor_close(c);
	return frame_done(c);
}

size_t taken_begin(struct buf *b, uint64_t seq, uint64_t n_rows)
{
	size_t at = frame_head(b, FRAME_TAKEN, 2);

	cbor_put_uint(b, seq);
	cbor_put_array(b, n_rows);
	return at;
}

void taken_row_encode(struct buf *b, const struct taken_row *row)
{
	cbor_put_array(b, 3);
	cbor_put_uint(b, row->seq);
	cbor_put_text(b, err_word(row->rc));
	put_text(b, row->text);
}

void taken_end(struct buf *b, size_t at)
{
	frame_tail(b, at);
}

/* ---- hello = [0, {open map}] */

static void text_field(struct cbor_cursor *c, char *out, size_t cap)
{
	struct slice s = cbor_text(c, 0, cap - 1);

	if (s.n && memchr(s.p, 0, s.n))
		cbor_fail(c, ERR_MALFORMED);
	else
		text_copy(out, cap, (const char *)s.p, s.n);
}

static void hello_boot(struct cbor_cursor *c, uint64_t *count, uint8_t nonce[16])
{
	struct slice bytes;

	cbor_open_array(c, 2);
	*count = cbor_uint(c, INT64_MAX);
	bytes = cbor_bytes(c, 16, 16);
	cbor_close(c);
	if (bytes.n)
		memcpy(nonce, bytes.p, bytes.n);
}

static void hello_version(struct cbor_cursor *c, struct hello *h)
{
	cbor_open_array(c, 2);
	h->version_min = (uint32_t)cbor_uint(c, UINT32_MAX);
	h->version_max = (uint32_t)cbor_uint(c, UINT32_MAX);
	cbor_close(c);
	if (h->version_min > h->version_max)
		cbor_fail(c, ERR_MALFORMED);
}

static void hello_features(struct cbor_cursor *c, struct hello *h)
{
	const uint8_t *start = c->p;
	uint64_t n = cbor_open_array_max(c, 64);

	for (uint64_t i = 0; !c->rc && i < n; i++)
		cbor_text(c, 1, 64);
	cbor_close(c);
	if (!c->rc)
		h->features = (struct slice){ start, (size_t)(c->p - start) };
}

/* One pair; false if the key is not known. */
static bool hello_field(struct cbor_cursor *c, struct hello *h)
{
	if (cbor_key(c, "boot"))
		hello_boot(c, &h->boot_count, h->boot_nonce);
	else if (cbor_key(c, "name"))
		text_field(c, h->name, sizeof(h->name));
	else if (cbor_key(c, "seen"))
		h->seen_seq = cbor_uint(c, INT64_MAX);
	else if (cbor_key(c, "want"))
		text_field(c, h->want_name, sizeof(h->want_name));
	else if (cbor_key(c, "audit"))
		h->audit_head = cbor_bytes(c, DIGEST_BYTES, DIGEST_BYTES);
	else if (cbor_key(c, "store"))
		h->store_seq = cbor_uint(c, INT64_MAX);
	else if (cbor_key(c, "domain"))
		text_field(c, h->domain, sizeof(h->domain));
	else if (cbor_key(c, "address"))
		text_field(c, h->address, sizeof(h->address));
	else if (cbor_key(c, "version"))
		hello_version(c, h);
	else if (cbor_key(c, "features"))
		hello_features(c, h);
	else if (cbor_key(c, "audit_seq"))
		h->audit_seq = cbor_uint(c, INT64_MAX);
	else if (cbor_key(c, "boot_seen"))
		hello_boot(c, &h->boot_seen, h->boot_seen_nonce);
	else if (cbor_key(c, "revocation"))
		h->revocation = cbor_uint(c, INT64_MAX);
	else if (cbor_key(c, "seen_before"))
		h->seen_before = cbor_uint(c, INT64_MAX);
	else
		return false;
	return true;
}

int hello_decode(struct cbor_cursor *c, struct hello *h)
{
	uint64_t n;

	memset(h, 0, sizeof(*h));
	n = cbor_open_map_max(c, 64);
	for (uint64_t i = 0; !c->rc && i < n; i++) {
		if (hello_field(c, h))
			continue;
		cbor_any(c); /* a later version's key */
		cbor_any(c);
	}
	cbor_close(c);
	if (h->version_max == 0) /* the one thing without which nothing can follow */
		cbor_fail(c, ERR_MALFORMED);
	return frame_done(c);
}

void hello_encode(struct buf *b, const struct hello *h)
{
	size_t at = frame_head(b, FRAME_HELLO, 1);
	uint64_t pairs = 7u + !!h->want_name[0] + !!h->audit_head.n + !!h->address[0] +
			 !!h->features.n + !!h->audit_seq + !!h->boot_seen + !!h->seen_before;

	cbor_put_map(b, pairs);
	cbor_put_text(b, "boot");
	cbor_put_array(b, 2);
	cbor_put_uint(b, h->boot_count);
	cbor_put_bytes(b, h->boot_nonce, sizeof(h->boot_nonce));
	cbor_put_text(b, "name");
	cbor_put_text(b, h->name);
	cbor_put_text(b, "seen");
	cbor_put_uint(b, h->seen_seq);
	if (h->want_name[0]) {
		cbor_put_text(b, "want");
		cbor_put_text(b, h->want_name);
	}
	if (h->audit_head.n) {
		cbor_put_text(b, "audit");
		cbor_put_bytes(b, h->audit_head.p, h->audit_head.n);
	}
	cbor_put_text(b, "store");
	cbor_put_uint(b, h->store_seq);
	cbor_put_text(b, "domain");
	cbor_put_text(b, h->domain);
	if (h->address[0]) {
		cbor_put_text(b, "address");
		cbor_put_text(b, h->address);
	}
	cbor_put_text(b, "version");
	cbor_put_array(b, 2);
	cbor_put_uint(b, h->version_min);
	cbor_put_uint(b, h->version_max);
	if (h->features.n) {
		cbor_put_text(b, "features");
		cbor_put_raw(b, h->features);
	}
	if (h->audit_seq) {
		cbor_put_text(b, "audit_seq");
		cbor_put_uint(b, h->audit_seq);
	}
	if (h->boot_seen) {
		cbor_put_text(b, "boot_seen");
		cbor_put_array(b, 2);
		cbor_put_uint(b, h->boot_seen);
		cbor_put_bytes(b, h->boot_seen_nonce, sizeof(h->boot_seen_nonce));
	}
	cbor_put_text(b, "revocation");
	cbor_put_uint(b, h->revocation);
	if (h->seen_before) {
		cbor_put_text(b, "seen_before");
		cbor_put_uint(b, h->seen_before);
	}
	frame_tail(b, at);
}

/* ---- chunks: want = [5, digest, offset], chunk = [6, digest, offset, total, data],
 * lack = [7, digest] */

int chunk_decode(struct cbor_cursor *c, struct chunk *k)
{
	k->digest = cbor_bytes(c, DIGEST_BYTES, DIGEST_BYTES);
	k->offset = cbor_uint(c, BLOB_BYTES_MAX);
	k->total = cbor_uint(c, BLOB_BYTES_MAX);
	k->data = cbor_bytes(c, 0, CHUNK_BYTES_MAX);
	/* Only nothing at all comes as an empty chunk; else a transfer could stand still for
	 * ever. */
	if (k->offset + k->data.n > k->total || (k->data.n == 0 && k->total != 0))
		cbor_fail(c, ERR_MALFORMED);
	return frame_done(c);
}

void chunk_encode(struct buf *b, const struct chunk *k)
{
	size_t at = frame_head(b, FRAME_CHUNK, 4);

	cbor_put_bytes(b, k->digest.p, k->digest.n);
	cbor_put_uint(b, k->offset);
	cbor_put_uint(b, k->total);
	cbor_put_bytes(b, k->data.p, k->data.n);
	frame_tail(b, at);
}

int want_decode(struct cbor_cursor *c, struct slice *digest, uint64_t *offset)
{
	*digest = cbor_bytes(c, DIGEST_BYTES, DIGEST_BYTES);
	*offset = cbor_uint(c, BLOB_BYTES_MAX);
	return frame_done(c);
}

void want_encode(struct buf *b, const uint8_t digest[DIGEST_BYTES], uint64_t offset)
{
	size_t at = frame_head(b, FRAME_WANT, 2);

	cbor_put_bytes(b, digest, DIGEST_BYTES);
	cbor_put_uint(b, offset);
	frame_tail(b, at);
}

int lack_decode(struct cbor_cursor *c, struct slice *digest)
{
	*digest = cbor_bytes(c, DIGEST_BYTES, DIGEST_BYTES);
	return frame_done(c);
}

void lack_encode(struct buf *b, const uint8_t digest[DIGEST_BYTES])
{
	size_t at = frame_head(b, FRAME_LACK, 1);

	cbor_put_bytes(b, digest, DIGEST_BYTES);
	frame_tail(b, at);
}

/* ---- credit = [2, posts, chunks], ping = [3, number], pong = [4, number] */

void credit_encode(struct buf *b, uint32_t posts, uint32_t chunks)
{
	size_t at = frame_head(b, FRAME_CREDIT, 2);

	cbor_put_uint(b, posts);
	cbor_put_uint(b, chunks);
	frame_tail(b, at);
}

int credit_decode(struct cbor_cursor *c, uint32_t *posts, uint32_t *chunks)
{
	*posts = (uint32_t)cbor_uint(c, UINT32_MAX);
	*chunks = (uint32_t)cbor_uint(c, UINT32_MAX);
	return frame_done(c);
}

void ping_encode(struct buf *b, enum frame_type which, uint64_t number)
{
	size_t at;

	must(which == FRAME_PING || which == FRAME_PONG);
	at = frame_head(b, which, 1);
	cbor_put_uint(b, number);
	frame_tail(b, at);
}

int ping_decode(struct cbor_cursor *c, uint64_t *number)
{
	*number = cbor_uint(c, UINT64_MAX);
	return frame_done(c);
}

/* ---- bye = [9, code, text] */

void bye_encode(struct buf *b, int rc, const char *text)
{
	size_t at = frame_head(b, FRAME_BYE, 2);
	char cut[BYE_TEXT_MAX + 1];

	text_cut(cut, sizeof(cut), text ? text : "");
	cbor_put_text(b, err_word(rc));
	cbor_put_text(b, cut);
	frame_tail(b, at);
}

int bye_decode(struct cbor_cursor *c, int *rc, struct slice *text)
{
	struct slice word = cbor_text(c, 1, 32);

	*text = cbor_text(c, 0, BYE_TEXT_MAX);
	*rc = word.n == 2 && memcmp(word.p, "ok", 2) == 0
		      ? 0
		      : err_from_word((const char *)word.p, word.n);
	return frame_done(c);
}

/* ---- vouch = [8, ticket, [hop record...]] */

void vouch_encode(struct buf *b, struct slice ticket, const struct slice *hops, size_t n)
{
	size_t at = frame_head(b, FRAME_VOUCH, 2);

	cbor_put_bytes(b, ticket.p, ticket.n);
	cbor_put_array(b, n);
	for (size_t i = 0; i < n; i++)
		cbor_put_bytes(b, hops[i].p, hops[i].n);
	frame_tail(b, at);
}

int vouch_decode(struct cbor_cursor *c, struct slice *ticket, struct slice *hops)
{
	const uint8_t *start;
	uint64_t n;

	*ticket = cbor_bytes(c, 1, FRAME_BYTES_MAX);
	start = c->p;
	n = cbor_open_array_max(c, FRAME_BYTES_MAX);
	for (uint64_t i = 0; !c->rc && i < n; i++)
		cbor_bytes(c, 1, FRAME_BYTES_MAX);
	cbor_close(c);
	*hops = (struct slice){ start, c->rc ? 0 : (size_t)(c->p - start) };
	return frame_done(c);
}

bool bytes_array_next(struct slice array, size_t *at, struct slice *item)
{
	struct cbor_cursor c;

	cbor_init(&c, array.p, array.n);
	if (*at == 0)
		cbor_open_array_max(&c, UINT64_MAX);
	else
		c.p += *at;
	c.depth = 0; /* the items one by one, as a sequence: their number was checked */
	if (c.rc || c.p == c.end)
		return false;
	*item = cbor_bytes(&c, 0, SIZE_MAX);
	*at = (size_t)(c.p - array.p);
	return !c.rc;
}
