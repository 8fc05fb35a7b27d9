/* What strangers send to the TLS port before anybody knows them: tls_feed() on a fresh server.
 */
#include "base/mem.h"
#include "seal/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tls_context *server_new(void)
{
	struct tls_context *t;
	AUTO(signer) s = mem_new(struct signer);
	uint8_t public_key[32];

	s->key = key_new();
	s->n_chain = 1;
	key_public(s->key, public_key);
	must(cert_issue(s->key, (struct slice){ NULL, 0 }, CERT_ROOT, "root", 0, public_key, 0,
		     4000000000000, &s->chain[0], NULL) == 0);
	must(tls_context_new(
		     s, (struct slice){ s->chain[0].data, s->chain[0].len }, &t, NULL) == 0);
	return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tls_context *server;

	if (!server)
		server = server_new();
	AUTO(tls_session) s = tls_session_new(server, true);
	AUTOBUF plain = BUF_INIT;
	AUTOBUF wire = BUF_INIT;
	size_t half = size / 2;

	if (tls_feed(s, data, half, &plain, &wire, NULL) == 0)
		tls_feed(s, data + half, size - half, &plain, &wire, NULL);
	must(!tls_ready(s) && plain.len == 0);
	return 0;
}
