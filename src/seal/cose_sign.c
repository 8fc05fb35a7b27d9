/* Signed objects: COSE_Sign1 made and checked. The bytes are src/wire/cose.c's business, belief
 * is trust.c's; here they meet the keys. */
#include "seal/ossl.h"

#include <string.h>

int cose_sign(const struct signer *s, const char *kind, struct slice payload, struct buf *out,
	struct errmsg *em)
{
	AUTOBUF header = BUF_INIT;
	AUTOBUF message = BUF_INIT;
	struct slice chain[COSE_CHAIN_MAX];
	uint8_t signature[SIGNATURE_BYTES];

	if (memcmp(s->key->public_key, s->info.public_key, PUBLIC_KEY_BYTES) != 0)
		return err_set(em, ERR_USAGE, "key and certificate differ");
	for (size_t i = 0; i < s->n_chain; i++)
		chain[i] = slice_of(&s->chain[i]);
	cose_protected(&header, kind, chain, s->n_chain);
	cose_to_sign(&message, slice_of(&header), payload);
	if (buf_check(&header) < 0 || buf_check(&message) < 0)
		return err_set(em, ERR_NOMEM, "cannot sign the %s: out of memory", kind);
	if (signature_make(s->key, slice_of(&message), signature) < 0)
		return err_set(em, ERR_NOMEM, "cannot sign the %s", kind);
	cose_encode(out, slice_of(&header), payload, signature);
	return buf_check(out) < 0 ? err_set(em, ERR_TOO_LARGE, "the %s is too large", kind) : 0;
}

static int check_signature(
	const struct cose *c, const struct cert_info *who, const char *kind, struct errmsg *em)
{
	AUTOBUF message = BUF_INIT;

	cose_to_sign(&message, c->protected_bytes, c->payload);
	if (buf_check(&message) < 0)
		return err_set(em, ERR_NOMEM, "%s: out of memory", kind);
	if (c->signature.n != SIGNATURE_BYTES ||
		!signature_good(who->public_key, slice_of(&message), c->signature.p))
		return err_set(em, ERR_SIGNATURE, "%s: the signature of %s does not match",
			kind, who->name);
	return 0;
}

int cose_verify(const struct trust *t, const char *kind, struct slice bytes, struct cose *out,
	struct cert_info *who, struct errmsg *em)
{
	struct slice wanted = { (const uint8_t *)kind, strlen(kind) };
	struct cert_info leaf;
	struct cose c;
	int rc = cose_decode(bytes, &c, em);

	if (rc < 0)
		return err_wrap(em, rc, "%s", kind);
	if (!slice_same(c.type, wanted))
		return err_set(em, ERR_MALFORMED, "signed as %.*s where %s is wanted",
			(int)(c.type.n < 32 ? c.type.n : 32), (const char *)c.type.p, kind);
	rc = trust_verify(t, c.chain, c.n_chain, &leaf, em);
	if (rc < 0)
		return err_wrap(em, rc, "%s", kind);
	rc = check_signature(&c, &leaf, kind, em);
	if (rc < 0)
		return rc;
	*out = c;
	if (who)
		*who = leaf;
	return 0;
}

void cose_id(const struct cose *c, uint8_t out[DIGEST_BYTES])
{
	AUTOBUF b = BUF_INIT;

	cbor_put_array(&b, 2);
	cbor_put_bytes(&b, c->protected_bytes.p, c->protected_bytes.n);
	cbor_put_bytes(&b, c->payload.p, c->payload.n);
	must(!b.failed); /* a signed object is a frame at most */
	digest_bytes(b.data, b.len, out);
}
