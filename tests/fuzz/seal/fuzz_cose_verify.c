/*
 * Signed objects from strangers: cose_verify(). The input is the object; the root is the one of
 * the kept vectors (make_corpus.py wrote root.inc), so that mutations of good objects get as
 * far as the signature.
 */
#include "base/mem.h"
#include "seal/seal.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t root[] = {
#include "root.inc"
};

static void try_kind(const char *kind, struct slice bytes)
{
	struct trust t = { { root, sizeof(root) }, NULL, 1795305600000, 300000 };
	AUTOBUF again = BUF_INIT;
	struct cert_info who;
	struct cose c;

	if (cose_verify(&t, kind, bytes, &c, &who, NULL) < 0)
		return;
	must(who.kind == CERT_KERNEL || who.kind == CERT_PRINCIPAL);
	/* what verifies has one encoding */
	cose_encode(&again, c.protected_bytes, c.payload, c.signature.p);
	must(again.len == bytes.n && memcmp(again.data, bytes.p, bytes.n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_kind("act", (struct slice){ data, size });
	try_kind("hop", (struct slice){ data, size });
	return 0;
}
