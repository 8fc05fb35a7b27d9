/* Samples of everything on the wire: see samples.h. */
#include "samples.h"

#include <string.h>

#include <tos/value.h>

#include "base/err.h"
#include "base/mem.h"
#include "wire/record.h"
#include "wire/carrier.h"
#include "wire/cose.h"
#include "wire/tree.h"

#define T0 1700000000000 /* a time */

static struct slice text(const char *s)
{
	return (struct slice){ (const uint8_t *)s, strlen(s) };
}

/* n bytes: first, first + 1, ... */
static const uint8_t *bytes(uint8_t first, size_t n)
{
	static uint8_t ring[8][DIGEST_BYTES * 2];
	static unsigned at;
	uint8_t *p = ring[at++ % 8];

	must(n <= sizeof(ring[0]));
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(first + i);
	return p;
}

static struct slice some(uint8_t first, size_t n)
{
	return (struct slice){ bytes(first, n), n };
}

/* ---- making */

static void make_folder(struct buf *b)
{
	struct tos_value *map = tos_map(), *list = tos_array(),
			 *hello = tos_text("Hello, World");
	const struct tos_value *elements[3];

	tos_push(list, tos_int(-1));
	tos_push(list, tos_float(1.5));
	tos_push(list, tos_float(1.1));
	tos_push(list, tos_nil());
	tos_push(list, tos_bool(true));
	tos_set(map, "list", list);
	tos_set(map, "a", tos_bytes(bytes(0, 3), 3));
	tos_set_value(map, tos_int(1000), tos_text("thousand"));
	tos_set_value(map, tos_int(-1), tos_text("minus"));
	elements[0] = hello;
	elements[1] = map;
	elements[2] = NULL;
	folder_encode(b, "greeting", elements, 3);
	tos_value_free(map);
	tos_value_free(hello);
}

static void make_post(struct buf *b)
{
	AUTOBUF folder = BUF_INIT;
	struct post p = { POST_CALL, text("host1/Echo"), text("host0#42"), 7, 2000,
		some(0, TRACE_BYTES), { NULL, 0 } };

	make_folder(&folder);
	p.folder = (struct slice){ folder.data, folder.len };
	post_encode(b, &p);
}

static void make_hello(struct buf *b)
{
	struct hello h = { .version_min = 1,
		.version_max = 1,
		.name = "host0",
		.domain = "ab12",
		.boot_count = 3,
		.store_seq = 1000,
		.seen_seq = 99,
		.revocation = 2,
		.address = "127.0.0.1:21212" };
	AUTOBUF features = BUF_INIT;

	memcpy(h.boot_nonce, bytes(16, 16), 16);
	h.audit_head = some(32, DIGEST_BYTES);
	cbor_put_array(&features, 1);
	cbor_put_text(&features, "chunks");
	h.features = (struct slice){ features.data, features.len };
	hello_encode(b, &h);
}

static void make_hello_audit(struct buf *b)
{
	struct hello h = { .version_min = 1,
		.version_max = 2,
		.name = "host0",
		.domain = "ab12",
		.boot_count = 3,
		.store_seq = 1000,
		.seen_seq = 99,
		.revocation = 2,
		.audit_seq = 2000,
		.boot_seen = 7,
		.seen_before = 70 };

	memcpy(h.boot_nonce, bytes(16, 16), 16);
	memcpy(h.boot_seen_nonce, bytes(48, 16), 16);
	h.audit_head = some(32, DIGEST_BYTES);
	hello_encode(b, &h);
}

static void make_hello_client(struct buf *b)
{
	struct hello h = { .version_min = 1, .version_max = 2, .want_name = "panel" };

	hello_encode(b, &h);
}

static void make_credit(struct buf *b)
{
	credit_encode(b, 256, 16);
}

static void make_ping(struct buf *b)
{
	ping_encode(b, FRAME_PING, INT64_MAX);
}

static void make_pong(struct buf *b)
{
	ping_encode(b, FRAME_PONG, 5);
}

static void make_want(struct buf *b)
{
	want_encode(b, bytes(1, DIGEST_BYTES), 65536);
}

static void make_chunk(struct buf *b)
{
	struct chunk k = { some(1, DIGEST_BYTES), 65536, 65540, some(7, 4) };

	chunk_encode(b, &k);
}

static void make_lack(struct buf *b)
{
	lack_encode(b, bytes(1, DIGEST_BYTES));
}

static void make_vouch(struct buf *b)
{
	struct slice hops[2] = { text("first"), text("second") };

	vouch_encode(b, text("ticket"), hops, 2);
}

static void make_bye(struct buf *b)
{
	bye_encode(b, ERR_VERSION, "this kernel speaks 1 to 1");
}

static void make_carry(struct buf *b)
{
	AUTOBUF folder = BUF_INIT;

	make_folder(&folder);
	carry_encode(b, &(struct carry){ .seq = 12,
				.seen = 7,
				.post = { .kind = POST_ONEWAY,
					.dest = text("host0#42/replies"),
					.sender = text("host1#3"),
					.deadline_ms = 2000,
					.folder = slice_buf(&folder) } });
}

static void make_taken(struct buf *b)
{
	size_t at = taken_begin(b, 14, 2);

	taken_row_encode(b, &(struct taken_row){ 12, ERR_MOVED, text("host2") });
	taken_row_encode(
		b, &(struct taken_row){ 13, ERR_FULL, text("256 folders wait for host0#42") });
	taken_end(b, at);
}

static void make_manifest(struct buf *b)
{
	struct manifest m = { .name = "facts",
		.version = "1.2",
		.runtime = "lua5.4",
		.entry = "main.lua",
		.permissions = { "Monitor", "Echo" },
		.n_permissions = 2,
		.issued_ms = T0,
		.expires_ms = T0 + 86400000 };

	m.n_files = 2;
	m.files = mem_zero(2 * sizeof(*m.files));
	strcpy(m.files[0].name, "main.lua");
	memcpy(m.files[0].digest, bytes(0, DIGEST_BYTES), DIGEST_BYTES);
	strcpy(m.files[1].name, "a/b.lua");
	memcpy(m.files[1].digest, bytes(100, DIGEST_BYTES), DIGEST_BYTES);
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		m.limits[i] = -1;
	m.limits[LIMIT_memory] = 16 << 20;
	m.limits[LIMIT_cpu] = 2000;
	manifest_encode(b, &m);
	manifest_fini(&m);
}

static void make_bundle(struct buf *b)
{
	struct slice names[2] = { text("main.lua"), text("a/b.lua") };
	struct slice contents[2] = { text("function begin() end\n"), text("") };

	bundle_encode(b, text("manifest"), names, contents, 2);
}

static void put_grown(struct tos_value *map, const char *folder, int64_t count, uint8_t first)
{
	struct tos_value *v = tos_array();

	tos_push(v, tos_int(count));
	tos_push(v, tos_bytes(bytes(first, DIGEST_BYTES), DIGEST_BYTES));
	tos_set(map, folder, v);
}

static struct tos_value *grown(void)
{
	struct tos_value *map = tos_map();

	put_grown(map, "RESULTS", 2, 12);
	put_grown(map, "LOG", 0, 13);
	return map;
}

static void ticket_sample(struct buf *b, bool sealed)
{
	struct ticket t = { .name = "host0#42",
		.home = "host0",
		.itinerant = true,
		.on_unreachable = "wait=30000",
		.issued_ms = T0,
		.expires_ms = T0 + 3600000 };

	memcpy(t.nonce, bytes(1, 16), 16);
	memcpy(t.code, bytes(2, DIGEST_BYTES), DIGEST_BYTES);
	memcpy(t.briefcase, bytes(3, DIGEST_BYTES), DIGEST_BYTES);
	for (size_t i = 0; i < LIMIT_COUNT; i++)
		t.limits[i] = limit_defaults[i];
	t.limits[LIMIT_programs] = 0; /* the default when the vectors were made */
	t.path = tos_array();
	tos_push(t.path, tos_text("host0"));
	tos_push(t.path, tos_text("host1|host2"));
	if (sealed) {
		t.sealed = tos_map();
		tos_set(t.sealed, "CONFIG", tos_bytes(bytes(11, DIGEST_BYTES), DIGEST_BYTES));
		t.append = grown();
	}
	ticket_encode(b, &t);
	ticket_fini(&t);
}

static void make_ticket(struct buf *b)
{
	ticket_sample(b, false);
}

static void make_ticket_sealed(struct buf *b)
{
	ticket_sample(b, true);
}

enum sample_hop { PLAIN, FAST, GROWS, CLONE };

static void hop_sample(struct buf *b, enum sample_hop what)
{
	bool fast = what == FAST;
	struct hop h = { .suffix = ".1.3",
		.e = { .count = 1 },
		.n = 2,
		.from = "host0",
		.dest = "host1",
		.kind = fast ? 1 : 0,
		.has_boot = fast,
		.time_ms = T0 };

	memcpy(h.id, bytes(4, DIGEST_BYTES), DIGEST_BYTES);
	memcpy(h.e.nonce, bytes(5, 8), 8);
	memcpy(h.prev, bytes(6, DIGEST_BYTES), DIGEST_BYTES);
	if (fast)
		memcpy(h.boot, bytes(7, 16), 16);
	h.parts = tos_map();
	tos_set(h.parts, "state", tos_bytes(bytes(8, DIGEST_BYTES), DIGEST_BYTES));
	tos_set(h.parts, "folder/RESULTS", tos_bytes(bytes(9, DIGEST_BYTES), DIGEST_BYTES));
	tos_set(h.parts, "path", tos_bytes(bytes(10, DIGEST_BYTES), DIGEST_BYTES));
	if (what == GROWS)
		h.grown = grown();
	if (what == CLONE) {
		snprintf(h.suffix, sizeof(h.suffix), ".1.4");
		snprintf(h.dest, sizeof(h.dest), "host0");
		h.kind = HOP_CLONE;
		h.n = 0;
		h.split[LIMIT_cpu] = 5000;
		h.split[LIMIT_hops] = 31;
		h.split[LIMIT_sent] = 1 << 20;
		h.split[LIMIT_clones] = 7;
	}
	hop_encode(b, &h);
	hop_fini(&h);
}

static void make_hop(struct buf *b)
{
	hop_sample(b, PLAIN);
}

static void make_hop_fast(struct buf *b)
{
	hop_sample(b, FAST);
}

static void make_hop_grown(struct buf *b)
{
	hop_sample(b, GROWS);
}

static void make_hop_clone(struct buf *b)
{
	hop_sample(b, CLONE);
}

static void make_record(struct buf *b)
{
	AUTOBUF hop = BUF_INIT;
	struct record r = { .index = 2, .n_path = 3, .batched = true, .cose = text("batch") };
	uint8_t path[3][DIGEST_BYTES];

	hop_sample(&hop, PLAIN);
	r.hop = (struct slice){ hop.data, hop.len };
	for (size_t i = 0; i < r.n_path; i++) {
		memcpy(path[i], bytes((uint8_t)(20 + i), DIGEST_BYTES), DIGEST_BYTES);
		r.path[i] = (struct slice){ path[i], DIGEST_BYTES };
	}
	record_encode(b, &r);
}

static void make_batch(struct buf *b)
{
	struct batch a = { .count = 5 };

	memcpy(a.root, bytes(23, DIGEST_BYTES), DIGEST_BYTES);
	batch_encode(b, &a);
}

static void make_briefcase(struct buf *b)
{
	struct tos_value *v = tos_map(), *results = tos_array();

	tos_push(results, tos_text("one"));
	tos_push(results, tos_int(2));
	tos_set(v, "RESULTS", results);
	tos_set(v, "", tos_array());
	value_put(b, v);
	tos_value_free(v);
}

static struct slice part(struct buf *b, size_t from)
{
	return (struct slice){ b->data + from, b->len - from };
}

static void make_envelope(struct buf *out)
{
	struct buf b[PART_COUNT] = { BUF_INIT };
	struct envelope e;

	make_briefcase(&b[PART_BRIEFCASE]);
	cbor_put_array(&b[PART_CHANNELS], 0);
	cbor_put_bytes(&b[PART_CODE], bytes(2, DIGEST_BYTES), DIGEST_BYTES);
	cbor_put_map(&b[PART_COUNTERS], 2);
	cbor_put_text(&b[PART_COUNTERS], "cpu");
	cbor_put_uint(&b[PART_COUNTERS], 12);
	cbor_put_text(&b[PART_COUNTERS], "hops");
	cbor_put_uint(&b[PART_COUNTERS], 1);
	cbor_put_array(&b[PART_HOPS], 1);
	cbor_put_bytes(&b[PART_HOPS], "hop", 3);
	cbor_put_array(&b[PART_LOG], 1);
	cbor_put_array(&b[PART_LOG], 3);
	cbor_put_uint(&b[PART_LOG], T0);
	cbor_put_text(&b[PART_LOG], "host0");
	cbor_put_text(&b[PART_LOG], "hi there");
	cbor_put_array(&b[PART_PATH], 1);
	cbor_put_text(&b[PART_PATH], "host2");
	cbor_put_bytes(&b[PART_STATE], "\xd8\x1c\x81\xd8\x1d\x00", 6);
	cbor_put_bytes(&b[PART_TICKET], "ticket", 6);
	cbor_put_array(&b[PART_TRAIL], 1);
	cbor_put_map(&b[PART_TRAIL], 1);
	cbor_put_text(&b[PART_TRAIL], "kernel");
	cbor_put_text(&b[PART_TRAIL], "host0");
	cbor_put_array(&b[PART_UNDELIVERED], 1);
	cbor_put_array(&b[PART_UNDELIVERED], 3);
	cbor_put_text(&b[PART_UNDELIVERED], "replies");
	cbor_put_text(&b[PART_UNDELIVERED], "host1/Echo");
	make_folder(&b[PART_UNDELIVERED]);
	for (size_t i = 0; i < PART_COUNT; i++)
		e.part[i] = part(&b[i], 0);
	envelope_encode(out, &e);
	for (size_t i = 0; i < PART_COUNT; i++)
		buf_fini(&b[i]);
}

static void cose_sample(struct buf *b, size_t n_chain, bool to_sign)
{
	struct slice chain[2] = { text("leaf certificate"), text("registrar certificate") };
	AUTOBUF protected_bytes = BUF_INIT;
	AUTOBUF payload = BUF_INIT;

	make_ticket(&payload);
	cose_protected(&protected_bytes, "ticket", chain, n_chain);
	if (to_sign)
		cose_to_sign(b, part(&protected_bytes, 0), part(&payload, 0));
	else
		cose_encode(b, part(&protected_bytes, 0), part(&payload, 0), bytes(64, 64));
}

static void make_cose(struct buf *b)
{
	cose_sample(b, 1, false);
}

static void make_cose_chain(struct buf *b)
{
	cose_sample(b, 2, false);
}

static void make_cose_to_sign(struct buf *b)
{
	cose_sample(b, 1, true);
}

/* ---- decoding and encoding again */

static int open_frame(struct slice in, int type, struct cbor_cursor *c)
{
	struct frame_reader r = { BUF_INIT, 0, 0 };
	struct slice frame = { NULL, 0 };
	int rc;

	/* The splitter sees it too, but the frame must outlive its buffer. */
	buf_add(&r.in, in.p, in.n);
	rc = frame_next(&r, &frame);
	if (rc == 0 && frame.n + 4 != in.n)
		rc = ERR_MALFORMED;
	if (rc == 0)
		frame.p = in.p + 4;
	buf_fini(&r.in);
	if (rc < 0)
		return rc;
	rc = frame_open(c, frame);
	return rc < 0 ? rc : rc == type ? 0 : ERR_MALFORMED;
}

static int again_folder(struct slice in, struct buf *out, bool *open)
{
	char name[NAME_BYTES_MAX + 1];
	struct tos_value *elements = NULL;
	struct slice s;
	uint64_t n;
	int checked = folder_check(in, &s, &n);
	int rc = folder_decode(in, name, &elements);

	(void)open;
	if (rc == ERR_TOO_LARGE)
		return rc;
	must(checked == rc);
	if (rc < 0)
		return rc;
	must(n == tos_len(elements));
	if (memchr(s.p ? s.p : (const uint8_t *)"", 0, s.n)) { /* folder_encode takes no NUL */
		tos_value_free(elements);
		return ERR_UNSUPPORTED;
	}
	AUTOFREE const struct tos_value **list = mem_zero((n + 1) * sizeof(*list));

	for (size_t i = 0; i < n; i++)
		list[i] = tos_at(elements, i);
	folder_encode(out, name, list, n);
	tos_value_free(elements);
	return 0;
}

static int again_post(struct slice in, struct buf *out, bool *open)
{
	struct cbor_cursor c;
	struct post p;
	int rc = open_frame(in, FRAME_POST, &c);

	(void)open;
	if (rc == 0)
		rc = post_decode(&c, &p);
	if (rc == 0)
		post_encode(out, &p);
	return rc;
}

static int again_hello(struct slice in, struct buf *out, bool *open)
{
	struct cbor_cursor c;
	struct hello h;
	int rc = open_frame(in, FRAME_HELLO, &c);

	*open = true;
	if (rc == 0)
		rc = hello_decode(&c, &h);
	if (rc == 0)
		hello_encode(out, &h);
	return rc;
}

static int again_credit(struct slice in, struct buf *out, bool *open)
{
	struct cbor_cursor c;
	uint32_t posts, chunks;
	int rc = open_frame(in, FRAME_CREDIT, &c);

	(void)open;
	if (rc == 0)
		rc = credit_decode(&c, &posts, &chunks);
	if (rc == 0)
		credit_encode(out, posts, chunks);
	return rc;
}

static int again_number(struct slice in, struct buf *out, enum frame_type type)
{
	struct cbor_cursor c;
	uint64_t number;
	int rc = open_frame(in, (int)type, &c);

	if (rc == 0)
		rc = ping_decode(&c, &number);
	if (rc == 0)
		ping_encode(out, type, number);
	return rc;
}

static int again_ping(struct slice in, struct buf *out, bool *open)
{
	(void)open;
	return again_number(in, out, FRAME_PING);
}

static int again_pong(struct slice in, struct buf *out, bool *open)
{
	(void)open;
	return again_number(in, out, FRAME_PONG);
}

static int again_want(struct slice in, struct buf *out, bool *open)
{
	struct cbor_cursor c;
	struct slice digest;
	uint64_t offset;
	int rc = open_frame(in, FRAME_WANT, &c);

	(void)open;
	if (rc == 0)
		rc = want_decode(&c, &digest, &offset);
	if (rc == 0)
		want_encode(out, digest.p, offset);
	return rc;
}

static int again_chunk(struct slice in, struct buf *out, bool *open)
{
	struct cbor_cursor c;
	struct chunk k;
	int rc = open_frame(in, FRAME_CHUNK, &c);

	(void)open;
	if (rc == 0)
		rc = chunk_decode(&c, &k);
	if (rc == 0)
		chunk_encode(out, &k);
	return rc;
}

static int again_lack(struct slice in, struct buf *out, bool *open)
{
	struct cbor_cursor c;
	struct slice digest;
	int rc = open_frame(in, FRAME_LACK, &c);

	(void)open;
	if (rc == 0)
		rc = lack_decode(&c, &digest);
	if (rc == 0)
		lack_encode(out, digest.p);
	return rc;
}

static int again_vouch(struct slice in, struct buf *out, bool *open)
{
	struct slice ticket, array, hops[64];
	struct cbor_cursor c;
	size_t n = 0, at = 0;
	int rc = open_frame(in, FRAME_VOUCH, &c);

	(void)open;
	if (rc == 0)
		rc = vouch_decode(&c, &ticket, &array);
	if (rc < 0)
		return rc;
	while (n < ARRAY_LEN(hops) && bytes_array_next(array, &at, &hops[n]))
		n++;
	if (n == ARRAY_LEN(hops))
		return ERR_UNSUPPORTED; /* of this test, not of the format */
	vouch_encode(out, ticket, hops, n);
	return 0;
}

static int again_bye(struct slice in, struct buf *out, bool *open)
{
	struct cbor_cursor c;
	struct slice why;
	int code, rc = open_frame(in, FRAME_BYE, &c);

	if (rc == 0)
		rc = bye_decode(&c, &code, &why);
	if (rc < 0)
		return rc;
	*open = code == ERR_UNKNOWN; /* a later version's word */
	if (memchr(why.p ? why.p : (const uint8_t *)"", 0, why.n))
		return ERR_UNSUPPORTED;
	AUTOFREE char *copy = mem_dup(why.p, why.n);

	bye_encode(out, code, copy);
	return 0;
}

static int again_carry(struct slice in, struct buf *out, bool *open)
{
	struct cbor_cursor c;
	struct carry y;
	int rc = open_frame(in, FRAME_CARRY, &c);

	(void)open;
	if (rc == 0)
		rc = carry_decode(&c, &y);
	if (rc == 0)
		carry_encode(out, &y);
	return rc;
}

static int again_taken(struct slice in, struct buf *out, bool *open)
{
	struct taken_row rows[64] = { 0 };
	struct cbor_cursor c;
	uint64_t seq, n;
	size_t at;
	int rc = open_frame(in, FRAME_TAKEN, &c);

	if (rc < 0)
		return rc;
	taken_decode(&c, &seq, &n);
	if (n > ARRAY_LEN(rows))
		return ERR_UNSUPPORTED; /* of this test, not of the format */
	for (uint64_t i = 0; i < n; i++) {
		taken_row_decode(&c, &rows[i]);
		*open |= rows[i].rc == ERR_UNKNOWN; /* a later version's word */
	}
	rc = taken_finish(&c);
	if (rc < 0)
		return rc;
	at = taken_begin(out, seq, n);
	for (uint64_t i = 0; i < n; i++)
		taken_row_encode(out, &rows[i]);
	taken_end(out, at);
	return 0;
}

static int again_manifest(struct slice in, struct buf *out, bool *open)
{
	struct manifest m;
	int rc = manifest_decode(in, &m, NULL);

	if (rc < 0)
		return rc;
	*open = m.extra;
	manifest_encode(out, &m);
	manifest_fini(&m);
	return 0;
}

static int again_bundle(struct slice in, struct buf *out, bool *open)
{
	struct slice names[MANIFEST_FILES_MAX], contents[MANIFEST_FILES_MAX];
	struct bundle b;
	int rc = bundle_decode(in, &b, NULL);

	(void)open;
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < b.n_files; i++) {
		/* The other way round, so that the encoder has to sort. */
		names[i] = b.files[b.n_files - 1 - i].name;
		contents[i] = b.files[b.n_files - 1 - i].content;
	}
	bundle_encode(out, b.manifest_cose, names, contents, b.n_files);
	return 0;
}

static int again_ticket(struct slice in, struct buf *out, bool *open)
{
	struct ticket t;
	int rc = ticket_decode(in, &t, NULL);

	if (rc < 0)
		return rc;
	*open = t.extra;
	ticket_encode(out, &t);
	ticket_fini(&t);
	return 0;
}

static int again_hop(struct slice in, struct buf *out, bool *open)
{
	struct hop h;
	int rc = hop_decode(in, &h, NULL);

	if (rc < 0)
		return rc;
	*open = h.extra;
	hop_encode(out, &h);
	hop_fini(&h);
	return 0;
}

static int again_record(struct slice in, struct buf *out, bool *open)
{
	struct record r;
	int rc = record_decode(in, &r, NULL);

	(void)open;
	if (rc == 0 && r.batched)
		record_encode(out, &r);
	else if (rc == 0)
		buf_add(out, in.p, in.n); /* a COSE_Sign1 alone */
	return rc;
}

static int again_batch(struct slice in, struct buf *out, bool *open)
{
	struct batch a;
	int rc = batch_decode(in, &a, NULL);

	(void)open;
	if (rc == 0)
		batch_encode(out, &a);
	return rc;
}

static int again_briefcase(struct slice in, struct buf *out, bool *open)
{
	struct slice name, elements;
	uint64_t n = 0;
	size_t at = 0;
	int rc = briefcase_check(in, NULL);

	(void)open;
	if (rc < 0)
		return rc;
	while (briefcase_next(in, &at, &name, &elements))
		n++;
	cbor_put_map(out, n);
	at = 0;
	while (briefcase_next(in, &at, &name, &elements)) {
		cbor_put_text_n(out, (const char *)name.p, name.n);
		cbor_put_raw(out, elements);
	}
	return 0;
}

static int again_envelope(struct slice in, struct buf *out, bool *open)
{
	struct envelope e;
	int rc = envelope_decode(in, &e, NULL);

	(void)open;
	if (rc == 0)
		envelope_encode(out, &e);
	return rc;
}

static int again_cose(struct slice in, struct buf *out, bool *open)
{
	AUTOBUF header = BUF_INIT;
	struct cose cose;
	int rc = cose_decode(in, &cose, NULL);
	char kind[64] = "";

	(void)open;
	if (rc < 0)
		return rc;
	if (memchr(cose.type.p, 0, cose.type.n))
		return ERR_UNSUPPORTED;
	memcpy(kind, cose.type.p, cose.type.n);
	cose_protected(&header, kind, cose.chain, cose.n_chain);
	cose_encode(out, part(&header, 0), cose.payload, cose.signature.p);
	return 0;
}

static int again_cbor(struct slice in, struct buf *out, bool *open)
{
	struct tos_value *v = NULL;
	int checked = cbor_check(in.p, in.n, true);
	int rc = tos_decode_state(in.p, in.n, 0, &v);

	(void)open;
	if (rc == ERR_TOO_LARGE)
		return rc;
	must(checked == rc);
	if (rc == 0)
		value_put(out, v);
	tos_value_free(v);
	return rc;
}

/* What seal and kernel read through values: the statement's payload, an index of two, a package's entry. */
static void make_statement(struct buf *b)
{
	struct tos_value *m = tos_map();

	tos_set(m, "digest", tos_bytes(bytes(1, DIGEST_BYTES), DIGEST_BYTES));
	tos_set(m, "kind", tos_text("program"));
	tos_set(m, "name", tos_text("agent"));
	tos_set(m, "version", tos_text("1.10"));
	tos_set(m, "machine", tos_text("x86_64"));
	tos_set(m, "issued", tos_int(1700000000000));
	tos_set(m, "expires", tos_int(0));
	value_put(b, m);
	tos_value_free(m);
}

static void make_introduction(struct buf *b)
{
	struct tos_value *m = tos_map();

	tos_set(m, "boot", tos_bytes(bytes(16, 16), 16));
	tos_set(m, "client", tos_text("host0/client/7"));
	tos_set(m, "issued", tos_int(1700000000000));
	tos_set(m, "expires", tos_int(1700000600000));
	value_put(b, m);
	tos_value_free(m);
}

static void make_index(struct buf *b)
{
	struct tos_value *list = tos_array();

	tos_push(list, tos_bytes("statement", 9));
	tos_push(list, tos_bytes("another", 7));
	value_put(b, list);
	tos_value_free(list);
}

static void make_package_entry(struct buf *b)
{
	struct tos_value *m = tos_map(), *abi = tos_array(), *files = tos_map();
	struct tos_value *inboxes = tos_array();

	tos_push(abi, tos_int(1));
	tos_push(abi, tos_int(0));
	tos_set(files, "x86_64", tos_text("probe-x86_64.so"));
	tos_set(files, "aarch64", tos_text("probe-aarch64.so"));
	tos_push(inboxes, tos_text("Probe"));
	tos_set(m, "abi", abi);
	tos_set(m, "files", files);
	tos_set(m, "where", tos_text("isolated"));
	tos_set(m, "inboxes", inboxes);
	tos_set(m, "privileges", tos_text("read-proc"));
	value_put(b, m);
	tos_value_free(m);
}

static const struct {
	const char *kind;
	void (*make)(struct buf *b);
	int (*again)(struct slice in, struct buf *out, bool *open);
} kinds[] = {
	{ "folder", make_folder, again_folder },
	{ "post", make_post, again_post },
	{ "hello", make_hello, again_hello },
	{ "hello-audit", make_hello_audit, again_hello },
	{ "hello-client", make_hello_client, again_hello },
	{ "credit", make_credit, again_credit },
	{ "ping", make_ping, again_ping },
	{ "pong", make_pong, again_pong },
	{ "want", make_want, again_want },
	{ "chunk", make_chunk, again_chunk },
	{ "lack", make_lack, again_lack },
	{ "vouch", make_vouch, again_vouch },
	{ "bye", make_bye, again_bye },
	{ "carry", make_carry, again_carry },
	{ "taken", make_taken, again_taken },
	{ "manifest", make_manifest, again_manifest },
	{ "bundle", make_bundle, again_bundle },
	{ "ticket", make_ticket, again_ticket },
	{ "ticket-sealed", make_ticket_sealed, again_ticket },
	{ "hop", make_hop, again_hop },
	{ "hop-grown", make_hop_grown, again_hop },
	{ "hop-clone", make_hop_clone, again_hop },
	{ "hop-fast", make_hop_fast, again_hop },
	{ "record", make_record, again_record },
	{ "batch", make_batch, again_batch },
	{ "briefcase", make_briefcase, again_briefcase },
	{ "envelope", make_envelope, again_envelope },
	{ "cose", make_cose, again_cose },
	{ "cose-chain", make_cose_chain, again_cose },
	{ "cose-to-sign", make_cose_to_sign, again_cbor },
	{ "statement", make_statement, again_cbor },
	{ "index", make_index, again_cbor },
	{ "introduction", make_introduction, again_cbor },
	{ "package-entry", make_package_entry, again_cbor },
};

const char *const sample_kinds[] = { "folder", "post", "hello", "hello-audit", "hello-client",
	"credit", "ping", "pong", "want", "chunk", "lack", "vouch", "bye", "carry", "taken",
	"manifest", "bundle", "ticket", "ticket-sealed", "hop", "hop-grown", "hop-clone",
	"hop-fast", "record", "batch", "briefcase", "envelope", "cose", "cose-chain",
	"cose-to-sign", "statement", "index", "introduction", "package-entry", NULL };

bool sample_make(const char *kind, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strcmp(kinds[i].kind, kind) != 0)
			continue;
		kinds[i].make(out);
		must(!out->failed);
		return true;
	}
	return false;
}

int sample_again(const char *kind, struct slice in, struct buf *out, bool *open)
{
	*open = false;
	if (strcmp(kind, "cbor") == 0)
		return again_cbor(in, out, open);
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (strcmp(kinds[i].kind, kind) == 0)
			return kinds[i].again(in, out, open);
	return ERR_USAGE;
}
