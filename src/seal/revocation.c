/* The revocation list: serial numbers, sorted, numbered and signed by the root itself. */
#include "seal/ossl.h"

#include <string.h>

#define REVOKED_MAX      32768 /* so that the list fits into a frame */
#define REVOCATION_BYTES (1u << 20)
#define SERIAL_BYTES_MAX 20
#define TIME_MAX_MS      UINT64_C(253402300799999)

struct revocation {
	uint64_t number;
	int64_t issued_ms;
	size_t n;
	struct serial {
		uint8_t len, bytes[SERIAL_BYTES_MAX];
	} * serials; /* ascending */
};

void revocation_free(struct revocation *r)
{
	if (!r)
		return;
	free(r->serials);
	free(r);
}

uint64_t revocation_number(const struct revocation *r)
{
	return r->number;
}

int64_t revocation_issued_ms(const struct revocation *r)
{
	return r->issued_ms;
}

size_t revocation_count(const struct revocation *r)
{
	return r->n;
}

struct slice revocation_serial(const struct revocation *r, size_t i)
{
	must(i < r->n);
	return (struct slice){ r->serials[i].bytes, r->serials[i].len };
}

/* The order of the encoded byte strings: the shorter first, then bytewise. */
static int serial_order(const void *pa, const void *pb)
{
	const struct serial *a = pa, *b = pb;

	if (a->len != b->len)
		return a->len < b->len ? -1 : 1;
	return memcmp(a->bytes, b->bytes, a->len);
}

bool revocation_has(const struct revocation *r, const uint8_t *serial, size_t n)
{
	struct serial key = { 0 };

	if (n == 0 || n > SERIAL_BYTES_MAX || r->n == 0)
		return false;
	key.len = (uint8_t)n;
	memcpy(key.bytes, serial, n);
	return bsearch(&key, r->serials, r->n, sizeof(key), serial_order) != NULL;
}

static void read_serials(struct cbor_cursor *c, struct revocation *r)
{
	uint64_t n = cbor_open_array_max(c, REVOKED_MAX);

	/* each takes two bytes at least, and the cursor has checked that they are there */
	r->serials = mem_try((size_t)n * sizeof(struct serial));
	if (!r->serials) {
		cbor_fail(c, ERR_NOMEM);
		return;
	}
	for (uint64_t i = 0; i < n && c->rc == 0; i++) {
		struct slice s = cbor_bytes(c, 1, SERIAL_BYTES_MAX);
		struct serial *to = &r->serials[i];

		if (c->rc < 0)
			return;
		to->len = (uint8_t)s.n;
		memcpy(to->bytes, s.p, s.n);
		if (i && serial_order(to - 1, to) >= 0)
			cbor_fail(c, ERR_MALFORMED);
		r->n++;
	}
	cbor_close(c);
}

static void need_key(struct cbor_cursor *c, const char *key)
{
	if (!cbor_key(c, key))
		cbor_fail(c, ERR_MALFORMED);
}

static int read_payload(struct slice payload, struct revocation *r)
{
	struct cbor_cursor c;

	cbor_init(&c, payload.p, payload.n);
	if (cbor_open_map_max(&c, 3) != 3)
		cbor_fail(&c, ERR_MALFORMED);
	need_key(&c, "issued");
	r->issued_ms = (int64_t)cbor_uint(&c, TIME_MAX_MS);
	need_key(&c, "number");
	r->number = cbor_uint(&c, INT64_MAX);
	need_key(&c, "revoked");
	read_serials(&c, r);
	cbor_close(&c);
	return cbor_finish(&c);
}

/* Signed by the root's own key, and shown with the root's own certificate. */
static int check_signed(const struct cose *c, struct slice root_der, struct errmsg *em)
{
	AUTOBUF message = BUF_MAX(REVOCATION_BYTES + 2 * CERT_BYTES_MAX);
	struct cert_info root;
	int rc = cert_info(root_der, &root, em);

	if (rc < 0)
		return rc;
	if (!slice_same(c->type, (struct slice){ (const uint8_t *)"revocation", 10 }))
		return err_set(em, ERR_MALFORMED, "not a revocation list");
	if (root.kind != CERT_ROOT || c->n_chain != 1 || !slice_same(c->chain[0], root_der))
		return err_set(em, ERR_UNTRUSTED, "not signed by this domain's root");
	cose_to_sign(&message, c->protected_bytes, c->payload);
	if (buf_check(&message) < 0)
		return err_set(em, ERR_NOMEM, "out of memory");
	if (c->signature.n != SIGNATURE_BYTES ||
		!signature_good(root.public_key, slice_of(&message), c->signature.p))
		return err_set(em, ERR_SIGNATURE, "the signature does not match");
	return 0;
}

int revocation_decode(
	struct slice cose, struct slice root_der, struct revocation **out, struct errmsg *em)
{
	AUTO(revocation) r = mem_new(struct revocation);
	struct cose c;
	int rc;

	if (cose.n > REVOCATION_BYTES)
		return err_set(em, ERR_TOO_LARGE, "revocation list: larger than 1 MiB");
	rc = cose_decode(cose, &c, em);
	if (rc == 0)
		rc = check_signed(&c, root_der, em);
	if (rc < 0)
		return err_wrap(em, rc, "revocation list");
	rc = read_payload(c.payload, r);
	if (rc < 0)
		return err_set(em, rc, "revocation list: bad content");
	*out = STEAL(r);
	return 0;
}

static int collect(const struct slice *serials, size_t n, struct serial *to, size_t *kept)
{
	*kept = 0;
	for (size_t i = 0; i < n; i++) {
		if (serials[i].n == 0 || serials[i].n > SERIAL_BYTES_MAX)
			return ERR_USAGE;
		to[i].len = (uint8_t)serials[i].n;
		memcpy(to[i].bytes, serials[i].p, serials[i].n);
	}
	if (n)
		qsort(to, n, sizeof(*to), serial_order);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || serial_order(&to[i], &to[*kept - 1]) != 0)
			to[(*kept)++] = to[i];
	return 0;
}

static void put_payload(struct buf *b, uint64_t number, int64_t issued_ms,
	const struct serial *serials, size_t n)
{
	cbor_put_map(b, 3);
	cbor_put_text(b, "issued");
	cbor_put_uint(b, (uint64_t)issued_ms);
	cbor_put_text(b, "number");
	cbor_put_uint(b, number);
	cbor_put_text(b, "revoked");
	cbor_put_array(b, n);
	for (size_t i = 0; i < n; i++)
		cbor_put_bytes(b, serials[i].bytes, serials[i].len);
}

int revocation_make(const struct key *root, struct slice root_der, uint64_t number,
	int64_t issued_ms, const struct slice *serials, size_t n, struct buf *out,
	struct errmsg *em)
{
	AUTOBUF payload = BUF_MAX(REVOCATION_BYTES - 2 * CERT_BYTES_MAX);
	AUTOFREE struct serial *sorted = NULL;
	struct signer s = { .key = (struct key *)root, .n_chain = 1 };
	size_t kept;
	int rc = cert_info(root_der, &s.info, em);

	if (rc < 0)
		return rc;
	if (s.info.kind != CERT_ROOT)
		return err_set(em, ERR_USAGE, "only the root signs revocation lists");
	if (n > REVOKED_MAX || issued_ms < 0 || number > INT64_MAX)
		return err_set(
			em, ERR_TOO_LARGE, "a revocation list holds up to %d", REVOKED_MAX);
	sorted = mem_try(n * sizeof(*sorted));
	if (!sorted)
		return err_set(em, ERR_NOMEM, "out of memory");
	if (collect(serials, n, sorted, &kept) < 0)
		return err_set(em, ERR_USAGE, "a serial number has 1 to 20 bytes");
	put_payload(&payload, number, issued_ms, sorted, kept);
	if (buf_check(&payload) < 0)
		return err_set(em, ERR_NOMEM, "out of memory");
	/* borrowed for the call: not freed here */
	s.chain[0] = (struct buf){ (uint8_t *)root_der.p, root_der.n, root_der.n, 0, false };
	return cose_sign(&s, "revocation", slice_of(&payload), out, em);
}
