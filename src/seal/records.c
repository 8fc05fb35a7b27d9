/* Hop records signed and checked: see records.h. */
#include "seal/records.h"

#include <string.h>

/* First bytes that keep a leaf from being taken for a node (RFC 9162). */
enum { LEAF, NODE };

struct tree {
	/* level 0 are the leaves; a level has half as many as the one before, rounded up */
	uint8_t (*level[BATCH_BITS + 1])[DIGEST_BYTES];
	size_t n[BATCH_BITS + 1];
	size_t height;
};

static int leaf_digest(struct slice hop, uint8_t out[DIGEST_BYTES])
{
	AUTOBUF b = BUF_MAX((size_t)9 << 20);

	buf_add_u8(&b, LEAF);
	buf_add(&b, hop.p, hop.n);
	if (buf_check(&b) < 0)
		return ERR_NOMEM;
	digest_bytes(b.data, b.len, out);
	return 0;
}

static void node_digest(const uint8_t *left, const uint8_t *right, uint8_t out[DIGEST_BYTES])
{
	uint8_t both[1 + 2 * DIGEST_BYTES] = { NODE };

	memcpy(both + 1, left, DIGEST_BYTES);
	memcpy(both + 1 + DIGEST_BYTES, right, DIGEST_BYTES);
	digest_bytes(both, sizeof(both), out);
}

static void tree_fini(struct tree *t)
{
	for (size_t i = 0; i <= BATCH_BITS; i++)
		free(t->level[i]);
}

static int tree_build(struct tree *t, const struct slice *hops, size_t n)
{
	int rc = 0;

	*t = (struct tree){ .n[0] = n };
	t->level[0] = mem_zero(n * DIGEST_BYTES);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = leaf_digest(hops[i], t->level[0][i]);
	for (size_t h = 0; t->n[h] > 1; h++) {
		size_t below = t->n[h];

		t->n[h + 1] = (below + 1) / 2;
		t->level[h + 1] = mem_zero(t->n[h + 1] * DIGEST_BYTES);
		for (size_t i = 0; i < below / 2; i++)
			node_digest(
				t->level[h][2 * i], t->level[h][2 * i + 1], t->level[h + 1][i]);
		/* One without a sibling goes up as it is. */
		if (below % 2)
			memcpy(t->level[h + 1][below / 2], t->level[h][below - 1],
				DIGEST_BYTES);
		t->height = h + 1;
	}
	return rc;
}

static void tree_path(const struct tree *t, size_t index, struct record *r)
{
	r->n_path = 0;
	for (size_t h = 0; h < t->height; h++, index /= 2)
		if ((index ^ 1) < t->n[h])
			r->path[r->n_path++] =
				(struct slice){ t->level[h][index ^ 1], DIGEST_BYTES };
}

/* RFC 9162, section 2.1.3.2. */
static bool path_leads(const struct record *r, const struct batch *a)
{
	uint8_t at[DIGEST_BYTES];
	uint64_t fn = r->index, sn = a->count - 1;

	if (fn > sn || leaf_digest(r->hop, at) < 0)
		return false;
	for (size_t i = 0; i < r->n_path; i++) {
		if (sn == 0)
			return false;
		if (fn % 2 || fn == sn) {
			node_digest(r->path[i].p, at, at);
			while (fn % 2 == 0 && fn != 0) {
				fn /= 2;
				sn /= 2;
			}
		} else {
			node_digest(at, r->path[i].p, at);
		}
		fn /= 2;
		sn /= 2;
	}
	return sn == 0 && memcmp(at, a->root, sizeof(at)) == 0;
}

static int batch_sign(const struct signer *s, const struct slice *hops, size_t n,
	struct buf *out, struct errmsg *em)
{
	AUTOBUF payload = BUF_INIT, cose = BUF_INIT;
	struct batch a = { .count = n };
	struct tree t;
	int rc = tree_build(&t, hops, n);

	if (rc == 0) {
		memcpy(a.root, t.level[t.height][0], sizeof(a.root));
		batch_encode(&payload, &a);
		rc = cose_sign(
			s, "hops", (struct slice){ payload.data, payload.len }, &cose, em);
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct record r = { .hop = hops[i],
			.cose = { cose.data, cose.len },
			.batched = true,
			.index = i };

		tree_path(&t, i, &r);
		record_encode(&out[i], &r);
		rc = buf_check(&out[i]);
	}
	tree_fini(&t);
	return rc;
}

int records_sign(const struct signer *s, const struct slice *hops, size_t n, struct buf *out,
	struct errmsg *em)
{
	must(n > 0 && n <= BATCH_MAX);
	return n == 1 ? cose_sign(s, "hop", hops[0], out, em) : batch_sign(s, hops, n, out, em);
}

static int batched_verify(
	const struct trust *t, const struct record *r, struct cert_info *who, struct errmsg *em)
{
	struct cose cose;
	struct batch a;
	int rc = cose_verify(t, "hops", r->cose, &cose, who, em);

	if (rc == 0)
		rc = batch_decode(cose.payload, &a, em);
	if (rc == 0 && !path_leads(r, &a))
		rc = err_set(em, ERR_SIGNATURE,
			"the hop record is not in the batch that was signed");
	return rc;
}

int record_verify(const struct trust *t, struct slice bytes, struct hop *hop,
	struct cert_info *who, struct errmsg *em)
{
	struct record r;
	struct cose cose;
	int rc = record_decode(bytes, &r, em);

	if (rc < 0)
		return err_wrap(em, rc, "hop");
	rc = r.batched ? batched_verify(t, &r, who, em)
		       : cose_verify(t, "hop", bytes, &cose, who, em);
	return rc < 0 || !hop ? rc : hop_decode(r.hop, hop, em);
}
