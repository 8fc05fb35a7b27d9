/* Hop records and batches of them: see record.h. */
#include "wire/record.h"

#include <string.h>

#define HEAD_ARRAY_4 0x84
#define HOP_MAX      ((size_t)8 << 20)
#define COSE_MAX     ((size_t)32 << 10)

static int batched_decode(struct slice bytes, struct record *out)
{
	struct cbor_cursor c;

	cbor_init(&c, bytes.p, bytes.n);
	cbor_open_array(&c, 4);
	out->hop = cbor_bytes(&c, 1, HOP_MAX);
	out->index = cbor_uint(&c, BATCH_MAX - 1);
	out->n_path = cbor_open_array_max(&c, BATCH_BITS);
	for (size_t i = 0; !c.rc && i < out->n_path; i++)
		out->path[i] = cbor_bytes(&c, DIGEST_BYTES, DIGEST_BYTES);
	cbor_close(&c);
	out->cose = cbor_bytes(&c, 1, COSE_MAX);
	cbor_close(&c);
	return cbor_finish(&c);
}

int record_decode(struct slice bytes, struct record *out, struct errmsg *em)
{
	struct record r = { .cose = bytes };
	struct cose cose;
	int rc;

	r.batched = bytes.n > 0 && bytes.p[0] == HEAD_ARRAY_4;
	if (r.batched) {
		rc = batched_decode(bytes, &r);
		if (rc < 0)
			return err_set(em, rc, "the hop record does not follow the format");
	} else {
		rc = cose_decode(bytes, &cose, em);
		if (rc < 0)
			return rc;
		r.hop = cose.payload;
	}
	*out = r;
	return 0;
}

void record_encode(struct buf *b, const struct record *r)
{
	cbor_put_array(b, 4);
	cbor_put_bytes(b, r->hop.p, r->hop.n);
	cbor_put_uint(b, r->index);
	cbor_put_array(b, r->n_path);
	for (size_t i = 0; i < r->n_path; i++)
		cbor_put_bytes(b, r->path[i].p, r->path[i].n);
	cbor_put_bytes(b, r->cose.p, r->cose.n);
}

int record_hop(struct slice bytes, struct hop *out, struct errmsg *em)
{
	struct record r;
	int rc = bytes.n ? record_decode(bytes, &r, em)
			 : err_set(em, ERR_MALFORMED, "no hop record");

	return rc < 0 ? rc : hop_decode(r.hop, out, em);
}

int batch_decode(struct slice payload, struct batch *out, struct errmsg *em)
{
	struct batch a = { .count = 0 };
	struct cbor_cursor c;
	struct slice root;
	int rc;

	cbor_init(&c, payload.p, payload.n);
	if (cbor_open_map_max(&c, 2) != 2)
		cbor_fail(&c, ERR_MALFORMED);
	cbor_expect_text(&c, "root");
	root = cbor_bytes(&c, DIGEST_BYTES, DIGEST_BYTES);
	cbor_expect_text(&c, "count");
	a.count = cbor_uint(&c, BATCH_MAX);
	if (!c.rc && a.count < 2)
		cbor_fail(&c, ERR_MALFORMED);
	cbor_close(&c);
	rc = cbor_finish(&c);
	if (rc < 0)
		return err_set(em, rc, "the batch of hop records does not follow the format");
	memcpy(a.root, root.p, sizeof(a.root));
	*out = a;
	return 0;
}

void batch_encode(struct buf *b, const struct batch *a)
{
	cbor_put_map(b, 2);
	cbor_put_text(b, "root");
	cbor_put_bytes(b, a->root, sizeof(a->root));
	cbor_put_text(b, "count");
	cbor_put_uint(b, a->count);
}
