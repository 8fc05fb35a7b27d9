/* COSE_Sign1 taken apart and put together: see cose.h. */
#include "wire/cose.h"

#include <string.h>

#define TAG_SIGN1       0xd2 /* the head of tag 18 */
#define SIGNATURE_BYTES 64
#define HEADER_ALG      1
#define HEADER_TYPE     16
#define HEADER_X5CHAIN  33
#define ALG_EDDSA       (-8)
#define PROTECTED_MAX   (16u << 10)
#define CERTIFICATE_MAX 4096
#define TYPE_PREFIX     "application/tos-"
#define TYPE_MAX        32

static void type_read(struct cbor_cursor *c, struct cose *out)
{
	const size_t n = sizeof(TYPE_PREFIX) - 1;
	struct slice type = cbor_text(c, n + 1, n + TYPE_MAX);

	if (c->rc)
		return;
	if (memcmp(type.p, TYPE_PREFIX, n) != 0)
		cbor_fail(c, ERR_MALFORMED);
	out->type = (struct slice){ type.p + n, type.n - n };
}

/* One certificate is a byte string, several are an array (RFC 9360): one way each. */
static void chain_read(struct cbor_cursor *c, struct cose *out)
{
	uint64_t n = 1;
	bool array = cbor_peek(c) == CBOR_ARRAY;

	if (array)
		n = cbor_open_array_max(c, COSE_CHAIN_MAX);
	if (array && n < 2)
		cbor_fail(c, ERR_MALFORMED);
	for (size_t i = 0; !c->rc && i < n; i++)
		out->chain[i] = cbor_bytes(c, 1, CERTIFICATE_MAX);
	if (array)
		cbor_close(c);
	out->n_chain = (size_t)n;
}

/* A header that we do not know may change what the signature means, so there is none. */
static int protected_read(struct cose *out)
{
	struct cbor_cursor c;

	cbor_init(&c, out->protected_bytes.p, out->protected_bytes.n);
	if (cbor_open_map_max(&c, 3) != 3)
		cbor_fail(&c, ERR_MALFORMED);
	if (cbor_uint(&c, HEADER_ALG) != HEADER_ALG || cbor_int(&c) != ALG_EDDSA)
		cbor_fail(&c, ERR_MALFORMED);
	if (cbor_uint(&c, HEADER_TYPE) != HEADER_TYPE)
		cbor_fail(&c, ERR_MALFORMED);
	type_read(&c, out);
	if (cbor_uint(&c, HEADER_X5CHAIN) != HEADER_X5CHAIN)
		cbor_fail(&c, ERR_MALFORMED);
	chain_read(&c, out);
	cbor_close(&c);
	return cbor_finish(&c);
}

int cose_decode(struct slice bytes, struct cose *out, struct errmsg *em)
{
	struct cbor_cursor c;
	struct cose cose = { 0 };
	int rc;

	if (bytes.n == 0 || bytes.p[0] != TAG_SIGN1)
		return err_set(em, ERR_MALFORMED, "not a COSE_Sign1");
	cbor_init(&c, bytes.p + 1, bytes.n - 1);
	cbor_open_array(&c, 4);
	cose.protected_bytes = cbor_bytes(&c, 1, PROTECTED_MAX);
	cbor_open_map_max(&c, 0);
	cbor_close(&c);
	cose.payload = cbor_bytes(&c, 1, SIZE_MAX);
	cose.signature = cbor_bytes(&c, SIGNATURE_BYTES, SIGNATURE_BYTES);
	cbor_close(&c);
	rc = cbor_finish(&c);
	if (rc < 0)
		return err_set(em, rc, "the COSE_Sign1 does not follow the format");
	rc = protected_read(&cose);
	if (rc < 0)
		return err_set(em, rc, "the COSE_Sign1's header does not follow the format");
	*out = cose;
	return 0;
}

void cose_protected(struct buf *b, const char *kind, const struct slice *chain, size_t n)
{
	size_t type = sizeof(TYPE_PREFIX) - 1 + strlen(kind);
	char text[sizeof(TYPE_PREFIX) + TYPE_MAX];

	if (strlen(kind) > TYPE_MAX || n == 0 || n > COSE_CHAIN_MAX) {
		b->failed = true;
		return;
	}
	memcpy(text, TYPE_PREFIX, sizeof(TYPE_PREFIX));
	strcat(text, kind); /* fits: checked above */
	cbor_put_map(b, 3);
	cbor_put_uint(b, HEADER_ALG);
	cbor_put_int(b, ALG_EDDSA);
	cbor_put_uint(b, HEADER_TYPE);
	cbor_put_text_n(b, text, type);
	cbor_put_uint(b, HEADER_X5CHAIN);
	if (n > 1)
		cbor_put_array(b, n);
	for (size_t i = 0; i < n; i++)
		cbor_put_bytes(b, chain[i].p, chain[i].n);
}

void cose_to_sign(struct buf *b, struct slice protected_bytes, struct slice payload)
{
	cbor_put_array(b, 4);
	cbor_put_text(b, "Signature1");
	cbor_put_bytes(b, protected_bytes.p, protected_bytes.n);
	cbor_put_bytes(b, NULL, 0);
	cbor_put_bytes(b, payload.p, payload.n);
}

void cose_encode(struct buf *b, struct slice protected_bytes, struct slice payload,
	const uint8_t signature[64])
{
	buf_add_u8(b, TAG_SIGN1);
	cbor_put_array(b, 4);
	cbor_put_bytes(b, protected_bytes.p, protected_bytes.n);
	cbor_put_map(b, 0);
	cbor_put_bytes(b, payload.p, payload.n);
	cbor_put_bytes(b, signature, SIGNATURE_BYTES);
}
