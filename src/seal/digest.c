/* Digests, random bytes, and how OpenSSL's errors become ours. Runs in every process that links
 * this room. */
#include "seal/ossl.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

static EVP_MD *sha256; /* fetched once: OpenSSL's short cuts look it up each time */
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void sha256_fetch(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	must(sha256 != NULL);
}

void digest_bytes(const void *p, size_t n, uint8_t out[DIGEST_BYTES])
{
	OSSL(EVP_MD_CTX, EVP_MD_CTX_free) ctx = EVP_MD_CTX_new();

	pthread_once(&sha256_once, sha256_fetch);
	must(ctx && EVP_DigestInit_ex2(ctx, sha256, NULL) == 1 &&
		EVP_DigestUpdate(ctx, p, n) == 1 && EVP_DigestFinal_ex(ctx, out, NULL) == 1);
}

struct digester {
	EVP_MD_CTX *ctx;
};

struct digester *digester_new(void)
{
	struct digester *d = mem_new(struct digester);

	pthread_once(&sha256_once, sha256_fetch);
	d->ctx = EVP_MD_CTX_new();
	must(d->ctx && EVP_DigestInit_ex2(d->ctx, sha256, NULL) == 1);
	return d;
}

void digester_free(struct digester *d)
{
	if (!d)
		return;
	EVP_MD_CTX_free(d->ctx);
	free(d);
}

void digester_add(struct digester *d, const void *p, size_t n)
{
	must(EVP_DigestUpdate(d->ctx, p, n) == 1);
}

void digester_end(struct digester *d, uint8_t out[DIGEST_BYTES])
{
	must(EVP_DigestFinal_ex(d->ctx, out, NULL) == 1);
}

/* The kernel's own generator: no state of ours that a fork could repeat. */
void random_bytes(void *p, size_t n)
{
	uint8_t *at = p;

	while (n) {
		ssize_t got = getrandom(at, n, 0);

		if (got < 0) {
			must(errno == EINTR);
			continue;
		}
		at += got;
		n -= (size_t)got;
	}
}

int ossl_fail(struct errmsg *em, int rc, const char *what)
{
	unsigned long e = ERR_peek_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;

	ERR_clear_error();
	return err_set(em, rc, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
}

bool slice_same(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
