/* Digests, random bytes, and how OpenSSL's errors become ours. Runs in every process that links
 * this room. */
#include "seal/ossl.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

void digest_bytes(const void *p, size_t n, uint8_t out[DIGEST_BYTES])
{
	must(SHA256(n ? p : "", n, out) != NULL);
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
