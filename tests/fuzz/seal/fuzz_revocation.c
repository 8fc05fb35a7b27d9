/*
 * Revocation lists: revocation_decode() on the input as it is, and on a list that the root
 * signed whose content is the input, since what is behind a signature should be bounded too.
 */
#include "base/mem.h"
#include "seal/seal.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct signer *root_signer(void)
{
	static struct signer *s;
	uint8_t public_key[32];

	if (s)
		return s;
	s = mem_new(struct signer);
	s->key = key_new();
	s->n_chain = 1;
	key_public(s->key, public_key);
	must(cert_issue(s->key, (struct slice){ NULL, 0 }, CERT_ROOT, "root", 0, public_key, 0,
		     4000000000000, &s->chain[0], NULL) == 0);
	must(cert_info((struct slice){ s->chain[0].data, s->chain[0].len }, &s->info, NULL) ==
		0);
	return s;
}

static void decode(struct slice cose, struct slice root)
{
	AUTO(revocation) r = NULL;

	if (revocation_decode(cose, root, &r, NULL) < 0)
		return;
	for (size_t i = 0; i < revocation_count(r); i++) {
		struct slice s = revocation_serial(r, i);

		must(revocation_has(r, s.p, s.n));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct signer *s = root_signer();
	struct slice root = { s->chain[0].data, s->chain[0].len };
	struct slice input = { data, size };
	AUTOBUF cose = BUF_INIT;

	decode(input, root);
	if (size && cose_sign(s, "revocation", input, &cose, NULL) == 0)
		decode((struct slice){ cose.data, cose.len }, root);
	return 0;
}
